"""Cases of one patient are in one fold: by their names, their folders and their DICOM headers."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from attunet.config import DataConfig
from attunet.errors import InputError
from attunet.preparation.prepare import prepare
from attunet.sources.case_files import CaseFiles, Source, SourceOptions
from attunet.sources.find_cases import find_cases
from attunet.sources.patients import with_patients_of_headers, with_patients_of_names


def source(*names: str, folders: bool = False) -> Source:
    root = Path("data")
    files = [CaseFiles(name.replace("/", "-"), name.replace("/", "-"), (root / f"{name}.png",)) for name in names]
    return Source(root, "suffix", "", (), tuple(files))


def patients(found: Source) -> list[str]:
    return [case.patient for case in found.cases]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["patient001_slice_00", "patient001_slice_01", "patient002_slice_00"],
            ["patient001", "patient001", "patient002"],
        ),
        (
            ["patient001_frame01", "patient001_frame12", "patient003_frame01"],
            ["patient001", "patient001", "patient003"],
        ),
        (["p1_visit1", "p1_visit2", "p2_visit1"], ["p1", "p1", "p2"]),
        (["p1_visit1_slice-3", "p1_visit2_slice-4", "p2_visit1_slice-3"], ["p1", "p1", "p2"]),
        (["eye07_left", "eye07_right", "eye08_left"], ["eye07", "eye07", "eye08"]),
        (["sub01_month0", "sub01_month12", "sub02_month0"], ["sub01", "sub01", "sub02"]),
        (["9001_V00", "9001_V06", "9002_V00"], ["9001", "9001", "9002"]),
        (["p7_2019-03-04", "p7_2020-11-30", "p8_2019-03-04"], ["p7", "p7", "p8"]),
        (["knee3_baseline", "knee3_followup2", "knee4_baseline"], ["knee3", "knee3", "knee4"]),
        (["lesion1_patch_0", "lesion1_patch_1", "lesion2_patch_0"], ["lesion1", "lesion1", "lesion2"]),
        (["Image_01L", "Image_01R", "Image_02L"], ["Image_01", "Image_01", "Image_02"]),
        (["A-00001-000", "A-00001-001", "A-00002-000"], ["A-00001", "A-00001", "A-00002"]),
        (["10005_1000005", "10005_1000007", "10006_1000012"], ["10005", "10005", "10006"]),
        (["patient1/a", "patient1/b", "patient2/a"], ["patient1", "patient1", "patient2"]),
    ],
)
def test_names_and_folders_show_the_patient(names: list[str], expected: list[str]) -> None:
    found = with_patients_of_names(source(*names))
    assert patients(found) == expected
    (decision,) = found.decisions
    assert decision.rule == "same-patient"
    assert f"2 patients for 3 cases ({expected[0]!r} has 2)" in decision.text


@pytest.mark.parametrize(
    "names",
    [
        ["case_00000", "case_00001", "case_00002"],  # a number is all that tells them apart
        ["slice_01", "slice_02", "slice_03"],  # one patient, or nobody knows
        ["patient1_slice_1", "patient1_slice_2"],  # one patient: no folds could be dealt
        ["liver_a", "liver_b", "spleen_a"],
        ["site_a/x", "site_a/y", "site_b/z"],  # folders without numbers are sites or sets
    ],
)
def test_names_that_show_no_patient_leave_every_case_alone(names: list[str]) -> None:
    found = source(*names)
    assert with_patients_of_names(found) is found


def test_patients_of_the_layout_are_kept() -> None:
    known = Source(
        Path("data"),
        "chaos-mr",
        "",
        (),
        (CaseFiles("1-T1", "1", ()), CaseFiles("1-T2", "1", ()), CaseFiles("2-T1", "2", ())),
    )
    assert with_patients_of_names(known) is known


def test_headers_join_cases_but_a_stand_in_for_all_tells_nothing() -> None:
    found = source("a", "b", "c", "d")
    joined = with_patients_of_headers(found, {"a": "x", "b": "y", "c": "x"})
    assert patients(joined) == ["a", "b", "a", "d"]
    assert "x" not in joined.decisions[0].text
    assert with_patients_of_headers(found, {"a": "x", "b": "x", "c": "x", "d": "x"}) is found
    assert with_patients_of_headers(found, {"a": "x", "b": "y"}) is found


@pytest.mark.parametrize(
    ("hashes", "expected"),
    [
        ({"c": "7", "b": "7", "d": "9"}, "AAAQ"),  # a has no header, and is b's patient by its name
        ({"a": "6", "c": "7", "b": "7"}, "AAAQ"),
        ({"a": "6", "c": "7", "b": "7", "d": "6"}, "AAAA"),
    ],
)
@pytest.mark.parametrize("order", ["abcd", "cabd", "dcba"])
def test_headers_never_part_cases_of_one_patient(hashes: dict[str, str], expected: str, order: str) -> None:
    root, owners = Path("data"), {"a": "P", "b": "P", "c": "A", "d": "Q"}
    files = [CaseFiles(case, owners[case], (root / case,)) for case in order]
    found = with_patients_of_headers(Source(root, "suffix", "", (), tuple(files)), hashes)
    assert "".join(case.patient for case in sorted(found.cases, key=lambda case: case.case)) == expected


def slices(folder: Path, made: SimpleNamespace) -> None:
    for patient in range(1, 5):
        for z in range(2):
            image, labels = made.plane(10 * patient + z)
            made.save_picture(folder / f"images/patient{patient:03d}_slice_{z:02d}.png", image)
            made.save_picture(
                folder / f"masks/patient{patient:03d}_slice_{z:02d}.png", (255 * (labels > 0)).astype(np.uint8)
            )


def test_slices_of_a_patient_are_in_one_fold_and_a_pattern_overrides(
    tmp_path: Path, made: SimpleNamespace, log_lines: list[str]
) -> None:
    slices(tmp_path / "source", made)
    store = prepare(tmp_path / "source", tmp_path / "store", DataConfig(), folds=4)
    assert sorted(map(sorted, store.splits.folds)) == [[f"patient{n:03d}"] for n in range(1, 5)]
    told = "decided: names that differ in a slice, frame, visit or side alone are of one patient: 4 patients"
    assert any(told in line for line in log_lines)
    options = SourceOptions(case_pattern="(.*)")
    apart = prepare(tmp_path / "source", tmp_path / "apart", DataConfig(), folds=4, options=options)
    assert sum(map(len, apart.splits.folds)) == 8


def test_splits_that_list_cases_keep_them_apart(tmp_path: Path, made: SimpleNamespace) -> None:
    slices(tmp_path / "source", made)
    names = [case.case for case in find_cases(tmp_path / "source").cases]
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"schema": 1, "folds": [names[::2], names[1::2]]}))
    assert prepare(tmp_path / "source", tmp_path / "store", DataConfig(), splits_file=splits).splits.folds[0] == tuple(
        names[::2]
    )
    splits.write_text(json.dumps({"schema": 1, "folds": [["patient001", "patient002"], ["patient003", "patient004"]]}))
    grouped = prepare(tmp_path / "source", tmp_path / "grouped", DataConfig(), splits_file=splits)
    assert grouped.splits.folds[0] == ("patient001", "patient002")
    splits.write_text(json.dumps({"schema": 1, "folds": [["patient001"], ["patient002"]]}))
    with pytest.raises(InputError, match="folds and test must list every labelled patient once"):
        prepare(tmp_path / "source", tmp_path / "wrong", DataConfig(), splits_file=splits)


def test_scans_with_one_patient_id_are_in_one_fold_and_the_id_is_kept_nowhere(
    tmp_path: Path, made: SimpleNamespace, write_series, log_lines: list[str]
) -> None:
    identifiers = {"a": "SECRET-7", "b": "SECRET-8", "c": "SECRET-7", "d": "ANONYMOUS", "e": "ANONYMOUS"}
    for seed, (name, identifier) in enumerate(identifiers.items()):
        image, labels = made.body(seed)
        write_series(tmp_path / f"source/images/{name}", image, made.affine_of(), PatientID=identifier)
        made.save_nifti(tmp_path / f"source/labels/{name}.nii.gz", labels)
    store = prepare(tmp_path / "source", tmp_path / "store", DataConfig(), folds=4)
    assert {case.name: case.patient for case in store.cases} == {"a": "a", "b": "b", "c": "a", "d": "d", "e": "e"}
    assert any("have the PatientID of another case's DICOM files" in line for line in log_lines)
    written = (
        b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
        + "".join(log_lines).encode()
    )
    assert b"SECRET" not in written
