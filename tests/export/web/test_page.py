"""The page against `attunet predict`, with wrong files, and with a network that it must not use."""

import gzip
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from attunet.export.web.write_page import write_page
from attunet.launch.cli import cli
from attunet.phantom import generate_case

Image = pytest.importorskip("PIL.Image")
READY = "#choose-file:not([disabled])"
ANSWER = "#result:not([hidden]), #error:not([hidden])"
TIMEOUT_MS = 120_000
Scan = Callable[[Path], Path]


def axes(codes: str) -> Scan:
    """A generated case as NIfTI, stored along these axes."""

    def write(folder: Path) -> Path:
        case = generate_case(3, 0, reduce=4)
        image = nib.Nifti1Image(case.image, case.affine)
        wanted = nib.orientations.axcodes2ornt(codes)
        turned = image.as_reoriented(
            nib.orientations.ornt_transform(nib.orientations.io_orientation(case.affine), wanted)
        )
        turned.header.set_qform(turned.affine, code=1)
        turned.header.set_sform(turned.affine, code=2)
        nib.save(turned, folder / "scan.nii.gz")
        return folder / "scan.nii.gz"

    return write


class Page:
    """A tab with the page. `segment` gives the line of an error, or the label map."""

    def __init__(self, tab: Any, folder: Path) -> None:
        self.tab, self.folder = tab, folder

    def segment(self, *files: Path) -> str | nib.Nifti1Image:
        self.choose(*files)
        self.tab.wait_for_selector(f"{READY}, #error:not([hidden])", timeout=TIMEOUT_MS)
        self.tab.wait_for_selector(READY, timeout=TIMEOUT_MS)
        if line := self.error:
            return line
        with self.tab.expect_download() as download:
            self.tab.click("#save")
        path = self.folder / download.value.suggested_filename
        download.value.save_as(path)
        return nib.load(path)

    def choose(self, *files: Path) -> None:
        folder = len(files) == 1 and files[0].is_dir()
        self.tab.set_input_files("#folder" if folder else "#file", files[0] if folder else list(files))

    @property
    def error(self) -> str:
        return self.tab.inner_text("#error") if self.tab.is_visible("#error") else ""


@pytest.fixture(scope="module")
def open_page(browser, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Page]:
    def open_it(address: str) -> Page:
        tab = browser.new_page()
        tab.goto(address)
        tab.wait_for_selector(READY, timeout=TIMEOUT_MS)
        return Page(tab, tmp_path_factory.mktemp("downloads"))

    return open_it


@pytest.fixture(scope="module")
def page(site: Path, serve_folder, open_page) -> Iterator[Page]:
    """The fp32 page with as many threads as the machine has, shared by tests: it has to go on after each."""
    with serve_folder(site) as (address, _):
        opened = open_page(address)
        yield opened
        opened.tab.close()


def predicted(model: Path, scan: Path, folder: Path) -> nib.Nifti1Image:
    """The command line's label map."""
    out = folder / "predicted.nii.gz"
    cli.main(["predict", str(model), str(scan), str(out)], standalone_mode=False)
    return nib.load(out)


def assert_same_grid(ours: nib.Nifti1Image, theirs: nib.Nifti1Image) -> None:
    assert ours.shape == theirs.shape
    assert ours.get_data_dtype() == theirs.get_data_dtype()
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-5)
    for code in ("qform_code", "sform_code", "xyzt_units"):
        assert ours.header[code] == theirs.header[code]


@pytest.mark.parametrize("codes", ["LAS", "RPI", "SLA"])
def test_a_nifti_file_is_segmented_as_on_the_command_line(
    codes: str, page: Page, artefact: Path, tmp_path: Path
) -> None:
    scan = axes(codes)(tmp_path)
    ours, theirs = page.segment(scan), predicted(artefact, scan, tmp_path)
    assert not isinstance(ours, str), ours
    assert_same_grid(ours, theirs)
    labels = np.asarray(theirs.dataobj)
    assert len(np.unique(labels)) == 5
    np.testing.assert_array_equal(np.asarray(ours.dataobj), labels)


def test_a_dicom_series_is_segmented_as_on_the_command_line(
    page: Page, artefact: Path, tmp_path: Path, write_series
) -> None:
    case = generate_case(3, 1, reduce=4)
    write_series(
        tmp_path / "series",
        case.image,
        case.affine,
        PatientName="Nobody^Knows",
        RescaleSlope="0.5",
        RescaleIntercept="-3",
    )
    (tmp_path / "series" / "notes.txt").write_text("left aside")
    ours, theirs = page.segment(tmp_path / "series"), predicted(artefact, tmp_path / "series", tmp_path)
    assert not isinstance(ours, str), ours
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
    assert "Nobody" not in page.tab.content()
    assert "Nobody" not in ours.header.binaryblock.decode("latin1")


def test_the_volumes_of_the_organs_are_those_of_the_label_map(page: Page, tmp_path: Path) -> None:
    labels = page.segment(axes("LAS")(tmp_path))
    voxel_ml = float(np.prod(np.linalg.norm(labels.affine[:3, :3], axis=0))) / 1000
    counts = np.bincount(np.asarray(labels.dataobj).astype(int).ravel(), minlength=5)
    rows = page.tab.locator("#volumes tr").all_inner_texts()
    assert len(rows) == 4
    for row, count in zip(rows, counts[1:], strict=True):
        assert float(row.split()[-2]) == pytest.approx(count * voxel_ml, abs=0.5)


def test_int8_agrees_with_the_command_line(
    built_page: Path, int8_artefact: Path, serve_folder, open_page, tmp_path: Path
) -> None:
    write_page(int8_artefact, tmp_path / "web")
    scan = axes("LAS")(tmp_path)
    with serve_folder(tmp_path / "web") as (address, _):
        page = open_page(address)
        assert "WebAssembly" in page.tab.inner_text("#engine")
        ours = np.asarray(page.segment(scan).dataobj)
        page.tab.close()
    theirs = np.asarray(predicted(int8_artefact, scan, tmp_path).dataobj)
    for value in np.unique(theirs)[1:]:
        both, sizes = ((ours == value) & (theirs == value)).sum(), (ours == value).sum() + (theirs == value).sum()
        assert 2 * both / sizes > 0.999, value


def test_one_html_file_works_from_disk(built_page: Path, artefact: Path, browser, open_page, tmp_path: Path) -> None:
    write_page(artefact, tmp_path / "one.html")
    scan = axes("LAS")(tmp_path)
    page = open_page((tmp_path / "one.html").as_uri())
    requests: list[str] = []
    page.tab.on("request", lambda request: requests.append(request.url))
    np.testing.assert_array_equal(
        np.asarray(page.segment(scan).dataobj), np.asarray(predicted(artefact, scan, tmp_path).dataobj)
    )
    assert page.tab.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
    assert not [url for url in requests if not url.startswith(("blob:", "data:", "http://127.0.0.1:9/"))]
    page.tab.close()


AGAIN = "copy or download it again"


def wrong_files(folder: Path) -> dict[str, Path]:
    good = axes("LAS")(folder).read_bytes()
    header = bytearray(gzip.decompress(good)[:352])
    header[42:48] = np.array([3000, 3000, 3000], "<i2").tobytes()
    contents = {
        "cut.nii.gz": good[: len(good) // 2],
        "huge.nii": bytes(header),
        "notes.txt": b"hello",
        "misnamed.nii.gz": b"%PDF-1.7 " * 99,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


def test_wrong_files_get_one_line_and_the_page_goes_on(page: Page, tmp_path: Path) -> None:
    lines = {
        "cut.nii.gz": (
            "cut.nii.gz: cannot be read as NIfTI: Compressed file ended before the end-of-stream marker was reached; "
            f"{AGAIN}"
        ),
        "huge.nii": "huge.nii: at most 268,435,456 voxels are supported, the header says 27,000,000,000",
        "notes.txt": "notes.txt: .txt is not read; the formats are NIfTI, DICOM (a folder with one series, or a file)",
        "misnamed.nii.gz": f"misnamed.nii.gz: cannot be read as NIfTI: Not a gzipped file (b'%P'); {AGAIN}",
    }
    for name, path in wrong_files(tmp_path).items():
        assert page.segment(path) == lines[name]
    assert not isinstance(page.segment(axes("LAS")(tmp_path)), str), "the page must go on"
    assert page.error == ""


def test_a_cancelled_scan_is_gone_and_the_next_is_segmented(page: Page, tmp_path: Path) -> None:
    case = generate_case(3, 2)
    nib.save(nib.Nifti1Image(np.repeat(case.image, 3, axis=2), case.affine), tmp_path / "long.nii")
    page.choose(tmp_path / "long.nii")
    page.tab.wait_for_selector("#stage:has-text('Slice')", timeout=TIMEOUT_MS)
    page.tab.click("#cancel")
    assert not page.tab.is_visible("#work")
    page.tab.wait_for_selector(READY, timeout=TIMEOUT_MS)
    assert page.segment(axes("LAS")(tmp_path)).shape == generate_case(3, 0, reduce=4).image.shape


def test_a_scan_can_be_dropped(page: Page, tmp_path: Path) -> None:
    (tmp_path / "dropped.txt").write_bytes(b"hello")
    page.tab.evaluate(
        """() => {
            const transfer = new DataTransfer();
            transfer.items.add(new File(["hello"], "dropped.txt"));
            document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }"""
    )
    page.tab.wait_for_selector("#error:not([hidden])", timeout=TIMEOUT_MS)
    assert page.error.startswith("dropped.txt: .txt is not read")
    page.tab.wait_for_selector(READY)


def test_nothing_leaves_the_pages_own_origin(site: Path, browser, serve_folder, open_page, tmp_path: Path) -> None:
    """The page, its worker and ONNX Runtime's threads ask their own server alone, and may not ask another."""
    (tmp_path / "outside").mkdir()
    scan = axes("LAS")(tmp_path)
    with serve_folder(site) as (address, _), serve_folder(tmp_path / "outside") as (outside, asked_outside):
        requests: list[str] = []
        browser_page = browser.new_page()
        browser_page.on("request", lambda request: requests.append(request.url))
        browser_page.goto(f"{address}?threads=2")
        browser_page.wait_for_selector(READY, timeout=TIMEOUT_MS)
        assert "2 threads" in browser_page.inner_text("#engine")
        page = Page(browser_page, tmp_path)
        assert not isinstance(page.segment(scan), str)
        assert {url for url in requests if not url.startswith((address, "blob:" + address, "data:"))} == set()
        ask = f"fetch('{outside}leak').then(() => 'sent', () => 'refused')"
        assert browser_page.evaluate(ask) == "refused"
        worker, *threads = browser_page.workers
        assert worker.evaluate(ask) == "refused"
        assert threads  # they wait for work and answer nobody; a blob's script has the policy of the page
        assert all(thread.url.startswith("blob:") for thread in threads)
        browser_page.close()
    assert asked_outside == []


def test_a_server_without_the_headers_runs_one_thread(site: Path, serve_folder, open_page) -> None:
    with serve_folder(site, isolated=False) as (address, _):
        page = open_page(f"{address}?provider=wasm&threads=2")
        assert page.tab.inner_text("#engine").endswith("1 thread")
        page.tab.close()


def test_the_viewer_shows_the_labels_and_hides_a_class(page: Page, tmp_path: Path) -> None:
    page.segment(axes("LAS")(tmp_path))
    picture = page.tab.locator("#canvas")
    page.tab.wait_for_timeout(500)
    shown = picture.screenshot()
    page.tab.locator("#volumes input").first.uncheck()
    page.tab.wait_for_timeout(500)
    hidden = picture.screenshot()
    assert shown != hidden
    before = int(page.tab.input_value("#slice"))
    picture.focus()
    page.tab.keyboard.press("ArrowUp")
    assert int(page.tab.input_value("#slice")) == before + 1
    assert "slice" in page.tab.get_attribute("#slice", "aria-valuetext")


def test_all_four_sides_of_a_slice_are_named(page: Page, tmp_path: Path) -> None:
    """Letters are the brightest pixels at the middle of each edge;
    the crosshair, which is as bright, is moved out of their place.
    """
    page.segment(axes("LAS")(tmp_path))
    picture = page.tab.locator("#canvas")
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] * 0.45, "y": box["height"] * 0.4})
    page.tab.wait_for_timeout(500)
    shown = np.asarray(Image.open(io.BytesIO(picture.screenshot())).convert("L"), dtype=int)
    height, width = shown.shape
    middle, half, edge = (height // 2, width // 2), 25, 24
    across, down = slice(middle[1] - half, middle[1] + half), slice(middle[0] - half, middle[0] + half)
    for side in (shown[:edge, across], shown[-edge:, across], shown[down, :edge], shown[down, -edge:]):
        assert side.max() > 150


def test_the_page_has_no_serious_fault_for_those_who_do_not_see_it(page: Page, tmp_path: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.segment(axes("LAS")(tmp_path))
    page.tab.wait_for_selector("#choose-folder:enabled")
    for scheme in ("light", "dark"):
        page.tab.emulate_media(color_scheme=scheme)
        page.tab.wait_for_timeout(400)  # the background changes its colour in 150 ms
        page.tab.evaluate("() => Promise.all(document.getAnimations().map((one) => one.finished)).then(() => true)")
        faults = [
            fault for fault in axe.run(page.tab).response["violations"] if fault["impact"] in ("serious", "critical")
        ]
        assert not faults, [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in faults]


def test_a_damaged_model_is_named_in_one_line(site: Path, serve_folder, browser, tmp_path: Path) -> None:
    shutil.copytree(site, tmp_path / "web")
    model = bytearray((tmp_path / "web/model.onnx").read_bytes())
    model[500] ^= 1
    (tmp_path / "web/model.onnx").write_bytes(model)
    with serve_folder(tmp_path / "web") as (address, _):
        tab = browser.new_page()
        tab.goto(address)
        tab.wait_for_selector("#error:not([hidden])", timeout=TIMEOUT_MS)
        assert tab.inner_text("#error").startswith("model.onnx: was damaged or changed after the export")
        tab.close()
