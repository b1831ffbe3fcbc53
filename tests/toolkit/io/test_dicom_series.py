"""Several DICOM series in one folder: a refusal lists them without the patient's data, and `--series` chooses one."""

import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from attunet.errors import InputError
from attunet.io.readers import read_volume
from attunet.store import open_store

pytest.importorskip("pydicom")

AFFINE = np.diag([-2.0, -2.0, 6.0, 1.0])


def volume_of(value: int, shape: tuple[int, int, int] = (12, 10, 4)) -> np.ndarray:
    return (np.random.default_rng(value).integers(0, 50, shape) + value).astype(np.int16)


@pytest.fixture
def add_series(write_series) -> Any:
    """Adds a series to a folder: `add_series(folder, "uid", data, SeriesNumber=2, SeriesDescription="t2")`."""

    def add(folder: Path, uid: str, data: np.ndarray, **elements: object) -> list[Path]:
        paths = write_series(folder / "new", data, AFFINE, SeriesInstanceUID=f"1.2.826.0.1.{uid}", **elements)
        moved = [path.rename(folder / f"{uid}-{path.name}") for path in paths]
        (folder / "new").rmdir()
        return moved

    return add


@pytest.fixture
def three(tmp_path: Path, add_series) -> Path:
    """A scout, a T2 and a T1 with the patient's name in its description, all in one folder."""
    patient = {"PatientName": "Mustermann^Erika", "PatientID": "4711"}
    add_series(tmp_path, "1", volume_of(0, (20, 16, 1)), SeriesNumber="1", SeriesDescription="Scout", **patient)
    add_series(tmp_path, "2", volume_of(100), SeriesNumber="4", SeriesDescription="T2 axial", **patient)
    add_series(
        tmp_path, "3", volume_of(200, (12, 10, 5)), SeriesNumber="7", SeriesDescription="T1 Mustermann", **patient
    )
    return tmp_path


def test_the_refusal_lists_number_description_and_slices(three: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_volume(three)
    line = str(caught.value)
    assert line.startswith(
        f"{three}: holds 3 DICOM series; choose one with --series NUMBER or --series TEXT of its description: "
    )
    assert line.endswith(
        "1 'Scout' (MR, 1 slice of 16 × 20), 4 'T2 axial' (MR, 4 slices of 10 × 12), 7 (MR, 5 slices of 10 × 12)"
    )
    assert "ustermann" not in line
    assert "4711" not in line


@pytest.mark.parametrize(
    "description",
    [
        *("t2 Li", "T2 na", "t2_Li_Na", "t1 op Meyer", "f. Schmidt", "geb. Huber", "Dr.Weber t2", "t2 Nordklinik"),
        *("12.03.1961", "t1 1961-03-12", "12/3/61", "12 3 1961", "geb. 1961", "t1 19610312", "t2_61_03_12"),
        *("03/12/1961", "61-3-12", "t1 2.12.03.1961", "1961 3 12"),
        "a long description that ends with the patient's own name Huber",
    ],
)
def test_a_description_with_a_name_or_a_date_is_not_listed(tmp_path: Path, add_series, description: str) -> None:
    persons = {"PatientName": "Li^Na", "PatientBirthName": "Huber^Na", "OperatorsName": ["Meyer^Otto", "Koch"]}
    persons |= {"PerformingPhysicianName": "Schmidt", "PatientBirthDate": "19610312", "InstitutionName": "Nordklinik"}
    persons |= {"RequestingPhysician": "Weber^Eva", "StudyID": "2"}
    add_series(tmp_path, "1", volume_of(0), SeriesNumber="1", SeriesDescription=description, **persons)
    add_series(tmp_path, "2", volume_of(9), SeriesNumber="2", SeriesDescription="T2 0.5x0.5x2.0 flair 2", **persons)
    with pytest.raises(InputError) as caught:
        read_volume(tmp_path)
    listed = str(caught.value).rpartition("description: ")[2]
    assert listed == "1 (MR, 4 slices of 10 × 12), 2 'T2 0.5x0.5x2.0 flair 2' (MR, 4 slices of 10 × 12)"


@pytest.mark.parametrize(
    "description", ["ep2d_diff_b0_50_800", "DWI 0-50-800", "dwi_10_50_1000", "t1 13.13.2000", "t2 MRI radiology"]
)
def test_a_description_without_a_name_or_a_date_is_listed(tmp_path: Path, add_series, description: str) -> None:
    header = {"StationName": "MRI2 MRI", "InstitutionalDepartmentName": "Radiology", "SeriesDescription": description}
    for number in (1, 2):
        add_series(tmp_path, str(number), volume_of(number), SeriesNumber=str(number), **header)
    with pytest.raises(InputError, match=re.escape(f"1 {description!r} (MR")):
        read_volume(tmp_path)


def test_slices_with_a_series_uid_each_get_advice_of_their_own(tmp_path: Path, add_series) -> None:
    for number in range(3):
        add_series(tmp_path, str(number), volume_of(number, (20, 16, 1)), SeriesNumber="4", SeriesDescription="T2")
    with pytest.raises(InputError, match="give all slices the same SeriesInstanceUID"):
        read_volume(tmp_path)


@pytest.mark.parametrize(
    ("wanted", "lowest", "slices"), [("4", 100, 4), ("t2", 100, 4), ("7", 200, 5), ("scout", 0, 1)]
)
def test_a_series_is_chosen_by_number_or_description(three: Path, wanted: str, lowest: int, slices: int) -> None:
    volume = read_volume(three, choices={"dicom-series": wanted})
    assert lowest <= volume.data.min() < lowest + 50
    assert volume.shape[2] == slices


@pytest.mark.parametrize(
    ("wanted", "words"), [("9", "none of its series is called so"), ("t", "2 of its series are called so")]
)
def test_a_choice_that_fits_none_or_several_lists_them_again(three: Path, wanted: str, words: str) -> None:
    with pytest.raises(
        InputError, match=f"--series '{wanted}': {words}; it holds 3 DICOM series; choose one with --series"
    ):
        read_volume(three, choices={"dicom-series": wanted})


def test_a_folder_with_one_series_is_read_whatever_is_chosen(tmp_path: Path, add_series) -> None:
    add_series(tmp_path, "1", volume_of(0))
    assert read_volume(tmp_path, choices={"dicom-series": "T2"}).shape == (12, 10, 4)


def test_series_without_numbers_are_counted(tmp_path: Path, add_series, refused) -> None:
    add_series(tmp_path, "8", volume_of(100), SeriesNumber="2", SeriesDescription="a 20240131")
    add_series(tmp_path, "9", volume_of(200), SeriesNumber="2")
    refused(tmp_path, r"description: 1 \(MR, 4 slices of 10 × 12\), 2 \(MR, 4 slices of 10 × 12\)$")
    assert read_volume(tmp_path, choices={"dicom-series": "2"}).data.min() >= 200


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        (
            {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
            r"is a colour image \(RGB, 3 samples a pixel\), which is not read",
        ),
        ({"Modality": "SEG"}, "is no image of slices"),
    ],
)
def test_what_is_no_scan_is_named_beside_the_series(
    tmp_path: Path, add_series, elements: dict[str, object], words: str, refused
) -> None:
    """A screenshot or a segmentation beside a scan: the reason, and the series that can be chosen in its place."""
    (other,) = add_series(tmp_path, "1", volume_of(0, (12, 10, 1)), SeriesNumber="1", **elements)
    add_series(tmp_path, "2", volume_of(100), SeriesNumber="2")
    refused(tmp_path, rf"{other.name}: {words}.*; {tmp_path} holds 2 DICOM series; choose one with --series")
    assert read_volume(tmp_path, choices={"dicom-series": "2"}).shape == (12, 10, 4)


def test_prepare_and_inspect_take_the_series_that_is_chosen(tmp_path: Path, attunet, add_series) -> None:
    for patient in ("p1", "p2"):
        folder = tmp_path / "set" / patient / "dicom"
        folder.mkdir(parents=True)
        add_series(folder, "1", volume_of(0, (20, 16, 1)), SeriesNumber="1", SeriesDescription="Scout")
        add_series(folder, "2", volume_of(100), SeriesNumber="2", SeriesDescription="T2 axial")
        mask = np.zeros((12, 10, 4), np.uint8)
        mask[3:6, 2:5, 1:3] = 1
        nib.save(nib.Nifti1Image(mask, AFFINE), folder.parent / "mask.nii.gz")
    refused = attunet("prepare", tmp_path / "set", tmp_path / "store", "--folds", 2)
    assert refused.code == 2
    assert "dicom: holds 2 DICOM series; choose one with --series" in refused.err
    assert refused.err.count("\n") == 1
    done = attunet("prepare", tmp_path / "set", tmp_path / "store", "--folds", 2, "--series", "T2")
    assert done.code == 0, done.err
    store = open_store(tmp_path / "store")
    assert [case.native_shape for case in store.cases] == [(12, 10, 4), (12, 10, 4)]
    volume, labels = store.read_source(store.cases[0].name)
    assert volume.data.min() >= 100
    assert labels is not None
    assert labels.sum() == 18
    seen = attunet("inspect", tmp_path / "set/p1/dicom", "--series", "1")
    assert "20 × 16 × 1 voxels" in seen.out
