"""What was written with a label map belongs to that one, and goes with it; nothing else is taken for its own."""

import errno
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.export.runtime import cohort
from attunet.privacy.audit_log import verify_audit

ALL = ["scan-0", "scan-1"]


@pytest.fixture
def scans(write_scan, tmp_path: Path) -> Path:
    for number, name in enumerate(ALL):
        write_scan(tmp_path / f"scans/{name}.nii.gz", (24, 20, 3), seed=number)
    return tmp_path / "scans"


@pytest.fixture
def predict(attunet, scans: Path, tmp_path: Path):
    """`predict(model, "scan-0.nii.gz", "out", *options)` is what the command prints, at the end its error."""

    def call(model: Path, source: str = "", output: str = "out", *options: object, code: int = 0) -> str:
        done = attunet("predict", model, scans / source, tmp_path / output, *options)
        assert done.code == code, done.err
        return done.out + done.err

    return call


@pytest.fixture(scope="module")
def other(save_artefact) -> Path:
    return save_artefact("other.onnx", name="other")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[!.]*"))


def test_a_label_map_that_one_scans_call_put_into_a_folder_is_not_of_the_folders_model(
    predict, artefact: Path, other: Path, tmp_path: Path
) -> None:
    predict(artefact)
    predict(other, "scan-0.nii.gz", "out/scan-0.nii.gz")
    assert "scan-0.nii.gz: was made by another model" in predict(artefact, code=2)
    predict(artefact, "scan-1.nii.gz", "out/scan-0.nii.gz")
    assert "scan-0.nii.gz: was made of another scan" in predict(artefact, code=2)
    predict(artefact, "scan-0.nii.gz", "out/scan-0.nii.gz")
    assert "0 segmented, 2 finished before" in predict(artefact)


def test_a_label_map_that_was_corrected_stays(predict, sure: Path, tmp_path: Path) -> None:
    predict(sure)
    labels, hidden = tmp_path / "out/scan-0.nii.gz", tmp_path / "out/.scan-0.nii.gz.json"
    corrected = (tmp_path / "out/scan-1.nii.gz").read_bytes()
    labels.write_bytes(corrected)
    (tmp_path / "out/scan-1.nii.gz").unlink()
    text = predict(sure, "", "out", "--uncertainty")
    assert f"warning: {labels}: was changed since it was made, and stays as it is" in text
    assert "1 segmented" in text
    assert "1 finished before" in text
    assert "was changed since it was made: move it" in predict(sure, "scan-0.nii.gz", "out/scan-0.nii.gz", code=2)
    assert labels.read_bytes() == corrected
    for content in (b"", corrected[:100]):
        labels.write_bytes(content)
        assert "scan-0.nii.gz: was changed since it was made, and is damaged: move it" in predict(sure, code=2)
    labels.write_bytes(corrected)
    content = json.loads(hidden.read_text())
    del content["files"]
    hidden.write_text(json.dumps(content))
    assert "scan-0.nii.gz: was made by another version of attunet" in predict(sure, code=2)


def test_a_choice_that_changes_nothing_is_no_other_reading(predict, artefact: Path, scans: Path) -> None:
    for path in scans.iterdir():
        image = nib.Nifti1Image.from_bytes(nib.load(path).to_bytes())
        image.set_sform(image.affine, code=0)
        image.set_qform(image.affine, code=0)
        nib.save(image, path)
    predict(artefact)
    assert "2 finished before" in predict(artefact, "", "out", "--read", "nifti-orientation=LAS")
    predict(artefact, "", "second", "--read", "nifti-orientation=LAS")
    assert "2 finished before" in predict(artefact, "", "second")
    assert "by another --read" in predict(artefact, "", "second", "--read", "nifti-orientation=RAS", code=2)


def test_the_files_of_an_earlier_label_map_go_with_it(predict, sure: Path, other: Path, tmp_path: Path) -> None:
    predict(sure, "", "out", "--uncertainty")
    predict(sure, "scan-0.nii.gz", "one.nii.gz", "--uncertainty")
    (tmp_path / "one-uncertainty.nii.gz").write_bytes(b"a user's own")
    predict(other, "scan-1.nii.gz", "one.nii.gz")
    assert {"one.nii.gz", "one-uncertainty.nii.gz"} == {name for name in names(tmp_path) if name.startswith("one")}
    for name in ALL:
        (tmp_path / f"out/{name}.nii.gz").unlink()
    predict(other)
    assert names(tmp_path / "out") == [f"{name}.nii.gz" for name in ALL]


def test_a_label_map_that_cannot_be_written_leaves_the_earlier_one(
    predict, sure: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(sure, "scan-0.nii.gz", "one.nii.gz", "--uncertainty")
    predict(sure, "scan-0.nii.gz", "one.nii.gz", "--uncertainty")  # the same bytes
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert {"one.nii.gz", "one-uncertainty.nii.gz", ".one.nii.gz.json"} <= set(before)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cohort, "write_labels", full)
    assert "No space left" in predict(other, "scan-1.nii.gz", "one.nii.gz", code=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_an_earlier_label_map_stays_until_another_is_whole(
    predict, sure: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(sure, "scan-0.nii.gz", "a/one.nii.gz", "--uncertainty")
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(nib, "save", full)
        for model in (sure, other):
            predict(model, "scan-1.nii.gz", "a/one.nii.gz", "--uncertainty", code=1)
            assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before


def test_the_tables_go_with_the_estimates_of_a_case(predict, sure: Path, other: Path, tmp_path: Path) -> None:
    predict(sure)
    predict(other, "scan-0.nii.gz", "out/scan-0.nii.gz")
    assert names(tmp_path / "out") == ["scan-0.nii.gz", "scan-1-confidence.json", "scan-1.nii.gz"]


def test_the_tables_of_a_folder_go_with_the_estimates_of_a_case_in_a_folder_below(
    predict, sure: Path, other: Path, scans: Path, tmp_path: Path
) -> None:
    (scans / "b").mkdir()
    (scans / "scan-1.nii.gz").rename(scans / "b/scan-1.nii.gz")
    predict(sure)
    assert set(json.loads((tmp_path / "out/confidence.json").read_text())["cases"]) == {"scan-0", "b/scan-1"}
    predict(other, "b/scan-1.nii.gz", "out/b/scan-1.nii.gz")
    assert names(tmp_path / "out") == ["b", "scan-0-confidence.json", "scan-0.nii.gz"]


def test_a_map_that_was_not_written_with_the_label_map_is_not_taken_for_its_own(
    predict, sure: Path, other: Path, tmp_path: Path
) -> None:
    predict(sure, "", "of-sure", "--uncertainty")
    predict(other)
    left = tmp_path / "of-sure/scan-0-uncertainty.nii.gz"
    left.rename(tmp_path / "out" / left.name)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert f"{left.name}: is there, and was not written with" in predict(other, "", "out", "--uncertainty", code=2)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_no_map_takes_the_place_of_another_cases_label_map_or_of_a_users_file(
    predict, sure: Path, scans: Path, tmp_path: Path
) -> None:
    first, second = scans / "scan-0-uncertainty.nii.gz", scans / "scan-1-confidence.json"
    (scans / "scan-0.nii.gz").rename(first)
    predict(sure, first.name, f"out/{first.name}")
    first.rename(scans / "scan-0.nii.gz")
    for name in (first.name, second.name):
        if name == second.name:
            (tmp_path / "out" / first.name).unlink()
            (tmp_path / "out" / name).write_text("a user's own")
        before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        case = f"{name[:6]}.nii.gz"
        assert f"{name}: is there, and was not written with {case}" in predict(sure, "", "out", "--uncertainty", code=2)
        predict(sure, case, f"out/{case}", "--uncertainty", code=2)
        assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_estimates_that_a_call_asks_for_are_made(predict, sure: Path, tmp_path: Path) -> None:
    predict(sure, "", "out", "--no-confidence")
    assert "looked at" not in predict(sure, "", "out", "--no-confidence")
    printed = predict(sure)
    assert "2 segmented" in printed
    cases = json.loads((tmp_path / "out/confidence.json").read_text())["cases"]
    assert set(cases) == set(ALL)
    assert f"{sum(case['review'] for case in cases.values())} cases to be looked at" in printed
    assert "2 finished before" in predict(sure)
    assert "warning: --review-below: the 2 finished before keep" in predict(sure, "", "out", "--review-below", 0.01)
    (tmp_path / "out/scan-0-confidence.json").write_text("{}")
    assert "1 segmented" in predict(sure)


def test_the_tables_have_all_label_maps_of_the_folder(
    predict, sure: Path, artefact: Path, scans: Path, tmp_path: Path
) -> None:
    (scans / "b").mkdir()
    (scans / "scan-1.nii.gz").rename(scans / "b/scan-2.nii.gz")
    (scans / "a").mkdir()
    (scans / "scan-0.nii.gz").rename(scans / "a/scan-0.nii.gz")
    predict(sure, "a")
    predict(artefact, "b/scan-2.nii.gz", "out/of-another.nii.gz")
    predict(sure, "b")
    assert set(json.loads((tmp_path / "out/confidence.json").read_text())["cases"]) == {"scan-0", "scan-2"}
    (tmp_path / "out/scan-0.nii.gz").write_bytes(b"")
    predict(sure, "b")
    assert set(json.loads((tmp_path / "out/confidence.json").read_text())["cases"]) == {"scan-2"}


def test_tables_of_others_stay(predict, sure: Path, other: Path, tmp_path: Path) -> None:
    """Of another model, or a user's own file; a model that would replace them is refused before the work."""
    table = tmp_path / "out/confidence.csv"
    table.parent.mkdir()
    table.write_text("a user's own\n")
    assert "confidence.csv: is there, and is no table of this model's" in predict(sure, code=2)
    assert names(tmp_path / "out") == ["confidence.csv"]
    table.unlink()
    predict(sure, "", "out")
    before = table.read_bytes()
    for path in (tmp_path / "scans").iterdir():
        path.rename(path.with_name(f"other-{path.name}"))
    predict(other, "", "out")
    assert table.read_bytes() == before


def test_two_label_maps_that_differ_in_their_ending_are_of_one_scan(
    predict, sure: Path, other: Path, tmp_path: Path
) -> None:
    """They share their maps and estimates."""
    predict(sure, "scan-0.nii.gz", "a.nii.gz")
    predict(sure, "scan-0.nii.gz", "a.nii")
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path) if name != "scans"}
    for model, source in ((sure, "scan-1.nii.gz"), (other, "scan-0.nii.gz")):
        text = predict(model, source, "a.nii", code=2)
        assert "a.nii.gz: is of another scan or model than a.nii will be: move it" in text
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_each_label_map_has_a_record_of_its_own(predict, artefact: Path, scans: Path, tmp_path: Path) -> None:
    """Those of two scans without organs, or of one scan that is there twice, have the same bytes."""
    for number in (0, 1):
        image = nib.Nifti1Image(np.full((24, 20, 3), number + 1, np.int16), np.diag([-1.6, -1.6, 5, 1]))
        nib.save(image, scans / f"scan-{number}.nii.gz")
    (scans / "scan-2.nii.gz").write_bytes((scans / "scan-0.nii.gz").read_bytes())
    predict(artefact)
    assert len({path.read_bytes() for path in (tmp_path / "out").glob("[!.]*")}) == 1
    log = tmp_path / "audit.jsonl"
    predict(artefact, "scan-0.nii.gz", "one.nii.gz", "--audit", log)
    assert "3 segmented" in predict(artefact, "", "out", "--audit", log)
    assert "3 finished before" in predict(artefact, "", "out", "--audit", log)
    assert verify_audit(log).records == 4
