"""The page segments as `attunet predict`, and refuses wrong files in one line."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.export.web.write_page import write_page
from attunet.phantom import generate_case


def assert_same_grid(ours: nib.Nifti1Image, theirs: nib.Nifti1Image) -> None:
    assert ours.shape == theirs.shape
    assert ours.get_data_dtype() == theirs.get_data_dtype()
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-5)
    for code in ("qform_code", "sform_code", "xyzt_units"):
        assert ours.header[code] == theirs.header[code]


@pytest.mark.parametrize("codes", ["LAS", "RPI", "SLA"])
def test_a_nifti_file_is_segmented_as_on_the_command_line(
    codes: str, page, save_case, predicted, artefact: Path, tmp_path: Path
) -> None:
    scan = save_case(tmp_path, codes)
    ours, theirs = page.segment(scan), predicted(artefact, scan)
    assert not isinstance(ours, str), ours
    assert_same_grid(ours, theirs)
    labels = np.asarray(theirs.dataobj)
    assert len(np.unique(labels)) == 5
    np.testing.assert_array_equal(np.asarray(ours.dataobj), labels)


def test_a_dicom_series_is_segmented_as_on_the_command_line(
    page, predicted, artefact: Path, tmp_path: Path, write_series
) -> None:
    case = generate_case(3, 1, reduce=4)
    elements = {"PatientName": "Nobody^Knows", "RescaleSlope": "0.5", "RescaleIntercept": "-3"}
    write_series(tmp_path / "series", case.image[:, :, 10:18], case.affine, **elements)
    (tmp_path / "series" / "notes.txt").write_text("left aside")
    ours, theirs = page.segment(tmp_path / "series"), predicted(artefact, tmp_path / "series")
    assert not isinstance(ours, str), ours
    assert_same_grid(ours, theirs)
    np.testing.assert_array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
    assert "Nobody" not in page.tab.content()
    assert "Nobody" not in ours.header.binaryblock.decode("latin1")


def test_the_volumes_of_the_organs_are_those_of_the_label_map(page, scan: Path) -> None:
    labels = page.segment(scan)
    voxel_ml = float(np.prod(np.linalg.norm(labels.affine[:3, :3], axis=0))) / 1000
    counts = np.bincount(np.asarray(labels.dataobj).astype(int).ravel(), minlength=5)
    rows = page.tab.locator("#volumes tr").all_inner_texts()
    assert len(rows) == 4
    for row, count in zip(rows, counts[1:], strict=True):
        assert float(row.split()[-2]) == pytest.approx(count * voxel_ml, abs=0.5)


def test_int8_agrees_with_the_command_line(
    built_page: Path, int8_artefact: Path, serve_folder, open_page, predicted, save_case, tmp_path: Path
) -> None:
    scan = save_case(tmp_path, slices=slice(None))  # all, since a few voxels of each class are undecided
    write_page(int8_artefact, tmp_path / "web")
    with serve_folder(tmp_path / "web") as (address, _):
        page = open_page(address)
        assert "WebAssembly" in page.tab.inner_text("#engine")
        ours = np.asarray(page.segment(scan).dataobj)
        page.tab.close()
    theirs = np.asarray(predicted(int8_artefact, scan).dataobj)
    for value in np.unique(theirs)[1:]:
        both, sizes = ((ours == value) & (theirs == value)).sum(), (ours == value).sum() + (theirs == value).sum()
        assert 2 * both / sizes > 0.999, value


def test_one_html_file_works_from_disk(
    built_page: Path, artefact: Path, open_page, predicted, scan: Path, tmp_path: Path
) -> None:
    write_page(artefact, tmp_path / "one.html")
    page = open_page((tmp_path / "one.html").as_uri())
    requests: list[str] = []
    page.tab.on("request", lambda request: requests.append(request.url))
    ours, theirs = (np.asarray(image.dataobj) for image in (page.segment(scan), predicted(artefact, scan)))
    np.testing.assert_array_equal(ours, theirs)
    assert page.tab.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
    assert not [url for url in requests if not url.startswith(("blob:", "data:", "http://127.0.0.1:9/"))]
    page.tab.close()


def test_wrong_files_get_one_line_and_the_page_goes_on(page, scan: Path, tmp_path: Path) -> None:
    good, again = scan.read_bytes(), "copy or download it again"
    header = bytearray(gzip.decompress(good)[:352])
    header[42:48] = np.array([3000, 3000, 3000], "<i2").tobytes()
    cut_short = "Compressed file ended before the end-of-stream marker was reached"
    for name, content, line in (
        ("cut.nii.gz", good[: len(good) // 2], f"cannot be read as NIfTI: {cut_short}; {again}"),
        ("huge.nii", header, "at most 268,435,456 voxels are supported, the header says 27,000,000,000"),
        ("notes.txt", b"hello", ".txt is not read; the formats are NIfTI, DICOM (a folder with one series, or a file)"),
        ("wrong.nii.gz", b"%PDF-1.7 " * 99, f"cannot be read as NIfTI: Not a gzipped file (b'%P'); {again}"),
    ):
        (tmp_path / name).write_bytes(content)
        assert page.segment(tmp_path / name) == f"{name}: {line}"
    assert not isinstance(page.segment(scan), str), "the page must go on"
    assert page.error == ""


def test_a_cancelled_scan_is_gone_and_the_next_is_segmented(page, scan: Path, tmp_path: Path) -> None:
    case = generate_case(3, 2, reduce=4)
    nib.save(nib.Nifti1Image(np.repeat(case.image, 20, axis=2), case.affine), tmp_path / "long.nii")
    page.choose(tmp_path / "long.nii")
    page.tab.wait_for_selector("#stage:has-text('Slice')", timeout=page.TIMEOUT_MS)
    page.tab.click("#cancel")
    assert not page.tab.is_visible("#work")
    page.tab.wait_for_selector(page.READY, timeout=page.TIMEOUT_MS)
    assert page.segment(scan).shape == nib.load(scan).shape
