import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.io.readers import read_mask
from attunet.io.writers import write_map
from attunet.store import Store


def write(path: Path, data: np.ndarray, affine: np.ndarray, *, codes: tuple[int, int]) -> Path:
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, code=codes[0])
    image.set_sform(affine, code=codes[1])
    path.parent.mkdir(exist_ok=True)
    nib.save(image, path)
    return path


@pytest.fixture
def scan(small_store: Store, tmp_path: Path) -> Path:
    """A case of the small store, as an oblique file with codes of its own."""
    volume, _ = small_store.read_source("01-T2SPIR")
    angle = np.radians(5)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = volume.affine.copy()
    affine[:3, :3] = turn @ affine[:3, :3]
    return write(tmp_path / "scans" / "scan.nii.gz", volume.data[0], affine, codes=(2, 4))


@pytest.mark.parametrize("kind", ["run", "artefact"])
def test_the_label_map_lies_on_the_inputs_grid(succeed, request, scan: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "labels.nii.gz"
    done = succeed("predict", request.getfixturevalue(kind), scan, out)
    assert "liver" in done.out
    given, made = nib.load(scan), nib.load(out)
    assert made.shape == given.shape
    np.testing.assert_allclose(made.affine, given.affine, atol=1e-6)
    assert (made.header["qform_code"], made.header["sform_code"]) == (2, 4)
    assert made.get_data_dtype() == np.uint8
    assert set(np.unique(made.dataobj)) <= {0, 1, 2, 3, 4}


def test_run_and_artefact_segment_alike(succeed, run: Path, artefact: Path, scan: Path, tmp_path: Path) -> None:
    succeed("predict", run, scan, tmp_path / "a.nii.gz")
    succeed("predict", artefact, scan, tmp_path / "b.nii.gz")
    a, b = (np.asarray(nib.load(tmp_path / f"{name}.nii.gz").dataobj) for name in "ab")
    assert (a == b).mean() > 0.999


@pytest.mark.parametrize("kind", ["run", "artefact"])
def test_attention_writes_a_map_per_gate_on_the_same_grid(
    succeed, request, scan: Path, tmp_path: Path, kind: str
) -> None:
    succeed("predict", request.getfixturevalue(kind), scan, tmp_path / "labels.nii", "--attention")
    given = nib.load(scan)
    maps = sorted(tmp_path.glob("labels-attention-*.nii.gz"))
    assert len(maps) == 2  # one per down-sampling of the network
    for path in maps:
        made = nib.load(path)
        values = made.get_fdata()
        assert made.shape == given.shape
        np.testing.assert_allclose(made.affine, given.affine, atol=1e-6)
        assert 0 <= values.min() <= values.max() <= 1
        assert values.std() > 0


@pytest.mark.parametrize("option", ["--attention", "--uncertainty", "--audit"])
def test_no_file_of_a_case_replaces_another(attunet, artefact: Path, scan: Path, tmp_path: Path, option: str) -> None:
    """A map replaced an input that was called like it, and label maps replaced maps, and the audit log."""
    kind = {"--attention": "attention-1", "--uncertainty": "uncertainty", "--audit": "confidence"}[option]
    other = scan.with_name(f"scan-{kind}.nii.gz")
    other.write_bytes(scan.read_bytes())
    more, out = [option], tmp_path / "out"
    if option == "--audit":
        more.append(out / "scan-confidence.json")
    else:
        done = attunet("predict", artefact, other, scan.with_suffix(""), option)
        assert (done.code, f"scan-{kind}.nii.gz: would be a map of" in done.err) == (2, True)
        assert other.read_bytes() == scan.read_bytes()
    done = attunet("predict", artefact, scan.parent, out, *more)
    assert (done.code, [path for path in out.rglob("*") if path.is_file()]) == (2, []), done.err


def test_a_folder_goes_through_and_a_bad_file_does_not_stop_it(attunet, run: Path, scan: Path, tmp_path: Path) -> None:
    folder = scan.parent
    (folder / "deeper").mkdir()
    (folder / "deeper" / "other-src.nii.gz").write_bytes(scan.read_bytes())
    (folder / "deeper" / "other-mask.nii.gz").write_bytes(scan.read_bytes())
    (folder / "broken.nii.gz").write_bytes(scan.read_bytes()[:400])
    (folder / "notes.txt").write_text("no volume")
    done = attunet("predict", run, folder, tmp_path / "out")
    assert done.code == 1
    assert "1 of 3 volumes" in done.err
    assert "1 failed" in done.out.splitlines()[-2]
    assert re.match("failed: .*broken.nii.gz", done.out.splitlines()[-1])
    made = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.nii.gz"))
    assert made == ["deeper/other-src.nii.gz", "scan.nii.gz"]


def test_label_maps_are_not_written_into_a_store_or_a_run(attunet, run: Path, small_store: Store, scan: Path) -> None:
    for folder, words in ((small_store.path, "holds a store"), (run, "holds a run")):
        before = sorted(folder.rglob("*"))
        done = attunet("predict", run, scan.parent, folder)
        assert (done.code, words in done.err) == (2, True), done.err
        assert sorted(folder.rglob("*")) == before


def test_a_user_is_of_an_audit_log(attunet, run: Path, scan: Path, tmp_path: Path) -> None:
    done = attunet("predict", run, scan, tmp_path / "labels.nii.gz", "--user", "me")
    assert (done.code, "needs --audit LOG" in done.err) == (2, True)


def test_two_scans_of_one_name_fail_both_each_time_and_the_others_are_segmented(
    attunet, succeed, run: Path, scan: Path, tmp_path: Path
) -> None:
    (scan.parent / "other.nii.gz").write_bytes(scan.read_bytes())
    succeed("predict", run, scan.parent, tmp_path / "out")
    (tmp_path / "out/other.nii.gz").unlink()
    nib.save(nib.load(scan), scan.parent / "scan.nii")
    done = attunet("predict", run, scan.parent, tmp_path / "out")
    assert (done.code, "2 of 3 volumes" in done.err) == (1, True)
    failed = [line for line in done.out.splitlines() if line.startswith("failed: ")]
    assert [line.partition(" must differ from ")[0] for line in failed] == [
        f"failed: {scan.parent / 'scan.nii'}:",
        f"failed: {scan}:",
    ]
    assert (tmp_path / "out/other.nii.gz").exists()


def test_the_input_is_never_overwritten(attunet, run: Path, scan: Path) -> None:
    before = scan.read_bytes()
    other = scan.with_name("other.nii.gz")
    other.write_bytes(before)
    for output in (scan, scan.parent / ".." / "scans" / "scan.nii.gz", other):
        done = attunet("predict", run, scan, output)
        assert (done.code, done.err.count("\n")) == (2, 1)
    (scan.parent / "scans").mkdir()
    (scan.parent / "scans/inner.nii.gz").write_bytes(before)  # its label map would lie in the input's folder
    for folder in (scan.parent, scan.parent / "labels", scan.parent.parent):
        assert attunet("predict", run, scan.parent, folder).code == 2
    assert scan.read_bytes() == other.read_bytes() == before


def test_no_slice_of_a_series_is_overwritten(
    attunet, run: Path, small_store: Store, tmp_path: Path, write_series
) -> None:
    volume, _ = small_store.read_source("01-T2SPIR")
    slices = write_series(tmp_path / "series", volume.data[0], volume.affine, StudyInstanceUID="1.2.3")
    before = [path.read_bytes() for path in slices]
    for source, output in (
        (tmp_path / "series", slices[0]),
        (tmp_path / "series", tmp_path / "series/labels.dcm"),
        (slices[1], slices[0]),
        (slices[1], slices[1]),
    ):
        done = attunet("predict", run, source, output)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert done.err.startswith(f"error: {output}: ")
    assert [path.read_bytes() for path in sorted((tmp_path / "series").iterdir())] == before
    for _ in range(2):
        done = attunet("predict", run, tmp_path / "series", tmp_path / "series/labels.nii.gz")
        assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("given", "output", "words"),
    [
        ("nowhere.nii.gz", "out.nii.gz", "nowhere.nii.gz: no such file"),
        ("scans/scan.nii.gz", "out.png", "must end in .nii.gz or .nii"),
        ("scans", "out.nii.gz", "out.nii.gz: must be a folder for the label maps of "),
    ],
)
def test_a_wrong_path_is_one_line(
    attunet, run: Path, scan: Path, tmp_path: Path, given: str, output: str, words: str
) -> None:
    done = attunet("predict", run, tmp_path / given, tmp_path / output)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert words in done.err
    assert not (tmp_path / output).exists()


@pytest.mark.parametrize("kind", ["run", "artefact"])
def test_a_volume_unlike_the_training_is_a_line_of_its_own(
    attunet, request, scan: Path, tmp_path: Path, kind: str
) -> None:
    model = request.getfixturevalue(kind)
    assert "warning" not in attunet("predict", model, scan, tmp_path / "labels.nii.gz").out
    image = nib.load(scan)
    write(scan.parent / "thin.nii.gz", np.asarray(image.dataobj), image.affine @ np.diag([1, 1, 0.2, 1]), codes=(1, 1))
    done = attunet("predict", model, scan.parent / "thin.nii.gz", tmp_path / "thin.nii.gz")
    warned = [line for line in done.out.splitlines() if line.startswith("warning: ")]
    assert done.code == 0
    assert "thin.nii.gz: spacing along axis 2 (mm) is 1.6, training had 8 to 8 [untrained-spacing]" in warned[0]
    assert [line.rpartition(" ")[2] for line in warned] == ["[untrained-spacing]", "[untrained-size]"]
    done = attunet("predict", model, scan.parent, tmp_path / "out")
    assert [line for line in done.out.splitlines() if line.startswith("warning: ")] == warned


def test_a_dicom_series_gets_the_labels_of_its_nifti_and_a_dicom_seg(
    attunet, succeed, run: Path, small_store: Store, tmp_path: Path, write_series
) -> None:
    seg = pytest.importorskip("highdicom").seg
    volume, _ = small_store.read_source("01-T2SPIR")
    uids = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    write_series(tmp_path / "dicom/one", volume.data[0], volume.affine, **uids)
    write_series(tmp_path / "dicom/two", volume.data[0], volume.affine, **uids)
    for output in ("out.dcm", "out.nii.gz"):
        succeed("predict", run, tmp_path / "dicom/one", tmp_path / output)
    succeed("predict", run, tmp_path / "dicom", tmp_path / "many", "--dicom-seg")
    nifti = small_store.source_root / "01-T2SPIR-src.nii.gz"
    for scan, output, why in (
        (tmp_path / "dicom/one", tmp_path / "other.nii.gz", "other.nii.gz must end in .dcm"),
        (nifti, tmp_path / "other.nii.gz", "no input is a DICOM series"),
        (nifti.parent, tmp_path / "other", "no input is a DICOM series"),
    ):
        done = attunet("predict", run, scan, output, "--dicom-seg")
        assert (done.code, output.exists()) == (2, False)
        assert f"--dicom-seg: {why}" in done.err.replace(f"{tmp_path}/", "")
    codes = tmp_path / "codes.json"
    codes.write_text('{"livr": ["99X", "A", "Liver"]}')
    done = attunet("predict", run, nifti, tmp_path / "other.nii.gz", "--codes", codes)
    assert (done.code, "--codes: is for DICOM SEG" in done.err) == (2, True)
    printed = succeed("predict", run, tmp_path / "dicom/one", tmp_path / "coded.dcm", "--codes", codes).out
    assert "warning: --codes: livr: no classes of the model, which has liver," in printed
    expected = np.asarray(nib.load(tmp_path / "out.nii.gz").dataobj)
    assert expected.any()
    for path in (tmp_path / "out.dcm", tmp_path / "many/one.dcm", tmp_path / "many/two.dcm"):
        found = seg.segread(path)
        counts = np.bincount(found.get_volume(combine_segments=True).array.ravel(), minlength=5)
        assert counts[1:].tolist() == np.bincount(expected.ravel(), minlength=5)[1:].tolist()
    done = attunet("predict", run, small_store.source_root / "01-T2SPIR-src.nii.gz", tmp_path / "no.dcm")
    assert (done.code, "must end in .nii.gz or .nii" in done.err) == (2, True)


def test_a_label_map_comes_back_in_the_inputs_format(succeed, run: Path, small_store: Store, tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    volume, _ = small_store.read_source("01-T2SPIR")
    scan = small_store.source_root / "01-T2SPIR-src.nii.gz"
    succeed("predict", run, scan, tmp_path / "expected.nii.gz")
    expected = np.asarray(nib.load(tmp_path / "expected.nii.gz").dataobj)
    assert expected.any()
    (tmp_path / "scans").mkdir()
    for suffix in (".mha", ".nrrd", ".mgz"):
        write_map(tmp_path / f"scans/scan{suffix}", volume.data[0], volume)
        succeed("predict", run, tmp_path / f"scans/scan{suffix}", tmp_path / f"out{suffix}")
        mask = read_mask(tmp_path / f"out{suffix}")
        np.testing.assert_array_equal(mask.data[0], expected)
        np.testing.assert_allclose(mask.affine, volume.affine, atol=1e-4)


def test_a_provider_or_device_that_would_change_nothing_is_refused(
    attunet, run: Path, artefact: Path, small_store: Store, scan: Path, tmp_path: Path
) -> None:
    for model, option, why in (
        (run, ("--provider", "openvino"), f"--provider openvino: computes artefacts, and {run} is of runs"),
        (artefact, ("--device", "cuda"), f"--device cuda: computes runs, and {artefact} is an artefact"),
    ):
        for call in (
            ("predict", model, scan, tmp_path / "out.nii.gz"),
            ("evaluate", small_store.path, model, "--out", tmp_path / "e"),
        ):
            done = attunet(*call, *option)
            assert (done.code, why in done.err, (tmp_path / "e").exists()) == (2, True, False), done.err


def test_the_capitals_of_an_ending_leave_nothing_else_behind(succeed, run: Path, scan: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in ("a.Nii", "a.NII.gz", "a.Mha"):
        succeed("predict", run, scan, tmp_path / "out" / name)
    written = ["a.Mha", "a.NII.gz", "a.Nii"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*written, *(f".{name}.json" for name in written)}


def test_tf32_is_for_cuda_alone() -> None:
    from attunet.errors import InputError
    from attunet.launch.commands.predict import _provider_options

    assert _provider_options("cuda", True) == {"device_id": 0, "use_tf32": 1}
    assert _provider_options("cuda", False) == {"device_id": 0}
    assert _provider_options("cpu", False) is None
    with pytest.raises(InputError, match="--tf32: is an arithmetic of the provider cuda, got --provider cpu"):
        _provider_options("cpu", True)
