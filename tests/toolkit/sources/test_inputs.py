from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.errors import InputError
from attunet.sources.inputs import find_inputs

DATA = np.random.default_rng(0).integers(0, 900, (9, 8, 4)).astype(np.int16)


def save(path: Path, data: np.ndarray = DATA) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.diag([-1, -1, 5, 1])), path)
    return path


def names(path: Path, num_channels: int = 1) -> list[str]:
    return [i.name for i in find_inputs(path, num_channels)]


def test_a_file_and_a_series_are_one_volume(tmp_path: Path, write_series) -> None:
    path = save(tmp_path / "a.nii.gz")
    (one,) = find_inputs(path)
    np.testing.assert_array_equal(one.read(1).data[0], DATA)
    write_series(tmp_path / "study/series", DATA, np.diag([-1, -1, 5, 1]))
    (one,) = find_inputs(tmp_path / "study/series")
    assert (one.name, one.read(1).data.shape) == ("series", (1, 9, 8, 4))


def test_a_folder_gives_its_volumes_without_masks(tmp_path: Path, write_series) -> None:
    for name in ("a.nii.gz", "a-mask.nii.gz", "site/b.nii", "site/b_seg.nii"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    write_series(tmp_path / "site/dicom", DATA, np.diag([-1, -1, 5, 1]))
    assert names(tmp_path) == ["a", "site/b", "site/dicom"]
    for name in ("c/images/x.nii.gz", "c/labels/x.nii.gz"):
        save(tmp_path / name)
    assert names(tmp_path / "c") == ["x"]


def test_channels_in_files_or_in_the_fourth_axis_are_one_volume(tmp_path: Path) -> None:
    for case in ("x_1", "x_2"):
        for channel in range(2):
            save(tmp_path / f"imagesTs/{case}_{channel:04d}.nii.gz", DATA + channel)
    found = find_inputs(tmp_path / "imagesTs", 2)
    assert [i.name for i in found] == ["x_1", "x_2"]
    assert found[0].read(2).data.shape == (2, 9, 8, 4)
    (one,) = find_inputs(tmp_path / "imagesTs/x_2_0000.nii.gz", 2)
    assert one.read(2).data[:, 0, 0, 0].tolist() == [DATA[0, 0, 0], DATA[0, 0, 0] + 1]
    (four,) = find_inputs(save(tmp_path / "four.nii.gz", np.stack([DATA, DATA + 1], axis=-1)), 2)
    np.testing.assert_array_equal(four.read(2).data, one.read(2).data)


def test_numbered_photographs_are_no_channels(tmp_path: Path) -> None:
    images = pytest.importorskip("PIL.Image")
    for number in (0, 1, 2, 3, 12):
        images.fromarray(np.zeros((5, 6, 3), np.uint8)).save(tmp_path / f"img_{number:04d}.png")
    assert names(tmp_path, 3) == ["img_0000", "img_0001", "img_0002", "img_0003", "img_0012"]


def test_what_is_known_to_be_a_mask_is_no_input(tmp_path: Path) -> None:
    for name in ("image_1.nii", "mask_1.nii", "image_2.nii", "mask_2.nii"):
        save(tmp_path / name)
    assert names(tmp_path) == ["image_1", "image_2"]


def test_series_without_endings_are_found_below_a_folder(tmp_path: Path, write_series) -> None:
    for path in write_series(tmp_path / "study/series", DATA, np.diag([-1, -1, 5, 1])):
        path.rename(path.with_suffix(""))
    (one,) = find_inputs(tmp_path)
    assert (one.name, one.read(1).data.shape) == ("study/series", (1, 9, 8, 4))


def test_nothing_to_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="has no volume"):
        find_inputs(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        find_inputs(tmp_path / "absent")


def test_a_folder_whose_files_are_all_called_masks_is_a_folder_of_images(tmp_path: Path) -> None:
    for name in ("gt_1.nii.gz", "gt_2.nii.gz"):
        (tmp_path / name).touch()
    assert [one.name for one in find_inputs(tmp_path)] == ["gt_1", "gt_2"]


def test_the_folder_of_one_case_is_one_input_of_several_channels(tmp_path: Path) -> None:
    names = [f"BraTS-GLI-00001-000-{part}.nii.gz" for part in ("seg", "t1c", "t1n", "t2f", "t2w")]
    for name in names:
        (tmp_path / "BraTS-GLI-00001-000").mkdir(exist_ok=True)
        (tmp_path / "BraTS-GLI-00001-000" / name).touch()
    (one,) = find_inputs(tmp_path / "BraTS-GLI-00001-000", 4)
    assert (one.name, [path.name for path in one.files]) == ("BraTS-GLI-00001-000", names[1:])
