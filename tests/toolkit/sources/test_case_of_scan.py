"""Scans without masks have the names of the cases that `prepare` makes of them with masks."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.sources.case_of_scan import cases_of
from attunet.sources.find_cases import find_cases
from attunet.sources.input import Input
from attunet.sources.inputs import find_inputs

NAMES = ("Ann_Lee", "Bo.Fry", "Cyd Ott", "7")


def write_nifti(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.zeros((4, 4, 2), np.uint8), np.eye(4)), path)


def cases(path: Path, num_channels: int = 1) -> list[str]:
    inputs = find_inputs(path, num_channels)
    return cases_of(inputs, path if path.is_dir() else path.parent)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{0}/imaging.nii.gz", "{0}/segmentation.nii.gz"),
        ("{0}/{0}_ct.nii.gz", "{0}/seg.nii.gz"),
        ("{0}/ct.nii.gz", "{0}/segmentations/liver.nii.gz"),
        ("site/{0}/visit/t1.nii.gz", "site/{0}/visit/seg.nii.gz"),
        ("images/{0}.nii.gz", "labels/{0}.nii.gz"),
        ("train/images/{0}_0000.nii.gz", "train/labels/{0}.nii.gz"),
    ],
)
def test_scans_without_masks_are_the_cases_of_those_with_masks(tmp_path: Path, image: str, mask: str) -> None:
    for name in NAMES:
        write_nifti(*(tmp_path / "drawn" / path.format(name) for path in (image, mask)))
        write_nifti(tmp_path / "new" / image.format(name))
    assert sorted(cases(tmp_path / "new")) == [case.case for case in find_cases(tmp_path / "drawn").cases]


def test_a_subject_of_bids_is_the_case_of_its_scan(tmp_path: Path) -> None:
    for name in ("sub-1_ses-a", "sub-1_ses-b", "sub-Lee"):
        write_nifti(tmp_path / name.replace("_", "/") / "anat" / f"{name}_T1w.nii.gz")
    assert sorted(cases(tmp_path)) == ["sub-1_ses-a", "sub-1_ses-b", "sub-Lee"]
    assert cases(tmp_path / "sub-Lee") == cases(tmp_path / "sub-Lee/anat/sub-Lee_T1w.nii.gz") == ["sub-Lee"]
    write_nifti(tmp_path / "sub-Lee/anat/sub-Lee_T2w.nii.gz")
    assert cases(tmp_path / "sub-Lee") == ["anat/sub-Lee_T1w", "anat/sub-Lee_T2w"]


@pytest.mark.parametrize("stem", ["imaging", "T1_image", "abdomen"])
def test_a_name_that_others_have_too_is_no_patients(tmp_path: Path, stem: str) -> None:
    for name in NAMES[:2]:
        write_nifti(tmp_path / name / f"{stem}.nii.gz", tmp_path / name / "segmentation.nii.gz")
    for name in NAMES[:2]:
        assert cases(tmp_path / name) == [name]
        assert cases(tmp_path / name / f"{stem}.nii.gz") == [name]
    write_nifti(tmp_path / "Bo.Fry/other.nii.gz")  # now the folder is none of one scan
    assert cases(tmp_path / f"Bo.Fry/{stem}.nii.gz") == ["abdomen" if stem == "abdomen" else "Bo.Fry"]


@pytest.mark.parametrize("stem", ["Ann_Lee", "volume-0", "img_0012", "0001", "T101", "t2_7"])
def test_a_scan_alone_in_a_folder_has_its_own_name(tmp_path: Path, stem: str) -> None:
    write_nifti(tmp_path / "scans" / f"{stem}.nii.gz", tmp_path / "other/imaging.nii.gz")
    assert cases(tmp_path / "scans") == cases(tmp_path / "scans" / f"{stem}.nii.gz") == [stem]


def test_a_scan_in_no_folder_has_its_own_name() -> None:
    assert cases_of([Input("imaging", (Path("/imaging.nii.gz"),))], Path("/")) == ["imaging"]
