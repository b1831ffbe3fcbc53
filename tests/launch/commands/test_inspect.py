"""What `attunet inspect` says of what users have: a line for what cannot be read, and of a patient nothing."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.sources.find_cases import LAYOUTS

PLANTED = {"PatientName": "Mustermann^Erika", "PatientID": "SSN-831-77", "PatientBirthDate": "19640813", "StudyDate": "20190307"}


def test_a_case_that_cannot_be_read_is_a_line_and_the_others_are_drawn(attunet, source: Path, tmp_path: Path) -> None:
    (source / "02-T2SPIR-src.nii.gz").write_bytes(b"no scan")
    image = nib.load(source / "03-T2SPIR-mask.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), source / "03-T2SPIR-mask.nii.gz")
    done = attunet("inspect", source, "--picture", tmp_path / "sheet.png")
    assert done.code == 0, done.err
    assert "error: " in done.out
    assert "02-T2SPIR-src.nii.gz: cannot be read as NIfTI" in done.out
    assert "warning: 03-T2SPIR: the mask is empty [empty-mask]" in done.out.splitlines()
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_what_fits_no_layout_gets_an_example_of_each(attunet, tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").touch()
    done = attunet("inspect", tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert all(f"{layout}: " in done.err for layout in LAYOUTS if layout != "auto")
    assert "imagesTr/a.nii.gz" in done.err


def test_a_series_and_an_image_of_several_channels_are_volumes(attunet, tmp_path: Path, write_series) -> None:
    data = np.arange(9 * 8 * 4).reshape(9, 8, 4).astype(np.int16)
    write_series(tmp_path / "series", data, np.diag([-1.5, -1.5, 5, 1]), **PLANTED)
    assert "9 × 8 × 4 voxels of 1.5 × 1.5 × 5 mm, 1 channel(s)" in attunet("inspect", tmp_path / "series").out
    nib.save(nib.Nifti1Image(np.stack([data, data], axis=-1), np.eye(4)), tmp_path / "two.nii")
    assert "2 channel(s)" in attunet("inspect", tmp_path / "two.nii").out


def test_what_headers_say_of_a_patient_is_in_no_line_and_no_picture(attunet, tmp_path: Path, write_series) -> None:
    images = pytest.importorskip("PIL.Image")
    for number in (1, 2):
        case = tmp_path / f"tree/MR/{number}/T2SPIR"
        data = np.random.default_rng(number).integers(0, 900, (20, 20, 4)).astype(np.int16)
        paths = write_series(case / "DICOM_anon", data, np.diag([-1.5, -1.5, 8, 1]), **PLANTED)
        (case / "Ground").mkdir()
        for path in paths:
            images.fromarray(np.full((20, 20), 63, np.uint8)).save(case / "Ground" / f"{path.stem}.png")
    broken = tmp_path / "tree/MR/2/T2SPIR/DICOM_anon/IMG-0004-00002.dcm"
    broken.write_bytes(broken.read_bytes()[:-20])
    done = attunet("inspect", tmp_path / "tree", "--picture", tmp_path / "sheet.png")
    assert "01-T2SPIR: 20 × 20 × 4 voxels" in done.out
    assert "is cut short" in done.out
    with images.open(tmp_path / "sheet.png") as picture:
        said = done.out + done.err + str(picture.info) + (tmp_path / "sheet.png").read_bytes().decode("latin-1")
    assert not any(value in said for value in (*PLANTED.values(), "Mustermann", "Erika"))
