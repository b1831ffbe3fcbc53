import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.errors import InputError
from attunet.sources.case_files import regular_files
from attunet.sources.input import Input
from attunet.sources.inputs import find_inputs
from attunet.sources.layouts.series import series_folders
from attunet.volumes.slices import with_channels

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


def test_masks_that_make_no_cases_are_told(tmp_path: Path) -> None:
    for name in ("images/a.nii.gz", "images/b.nii.gz", "labels/a.nii.gz"):
        save(tmp_path / name)
    told: list[str] = []
    find_inputs(tmp_path, note=told.append)
    assert not told
    save(tmp_path / "labels/c.nii.gz")
    assert [one.name for one in find_inputs(tmp_path, note=told.append)] == ["images/a", "images/b"]
    assert len(told) == 2  # the other one says which files are left out
    assert told[0].startswith("its images and masks are no cases, and its files are taken by their names alone: ")
    assert "labels/c.nii.gz: this mask has no image" in told[0]


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


@pytest.mark.parametrize("channels", [(), ("Red", "green", "blue"), ("dapi", "gfp", "rfp")])
def test_a_grey_picture_is_three_colours_and_no_three_sequences(tmp_path: Path, channels: tuple[str, ...]) -> None:
    pixels = np.arange(30, dtype=np.uint8).reshape(5, 6)
    pytest.importorskip("PIL.Image").fromarray(pixels).save(tmp_path / "x_dapi.png")
    (one,) = find_inputs(tmp_path, 3, channels)
    if "dapi" not in channels:
        assert len(with_channels(one.read(3, channels), 3).data) == 3
        return
    with pytest.raises(
        InputError, match=r"x_dapi.png: must have 3 channels \(dapi, gfp, rfp\), got 1; in one file, or"
    ):
        one.read(3, channels)


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


TWINS = (
    ("A.nii.gz", "A.nii"),
    ("A.nii.gz", "A.NII.GZ"),
    ("A.nii.gz", "a.nii.gz"),
    ("\u00e4.nii", "a\u0308.nii"),
    ("A.nii.gz", "A_0000.nii.gz"),
    ("A_0000.nii", "A_0000.nii.gz"),
    ("x/A.nii.gz", "X/A.nii.gz"),
)


@pytest.mark.parametrize("twins", TWINS, ids=" ".join)
def test_two_volumes_of_one_name_are_refused_and_the_others_are_not(tmp_path: Path, twins: tuple[str, str]) -> None:
    for name in (*twins, "B.nii.gz"):
        save(tmp_path / name)
    inputs = find_inputs(tmp_path)
    assert sorted(one.files[0].relative_to(tmp_path).as_posix() for one in inputs) == sorted([*twins, "B.nii.gz"])
    for one in inputs:
        if one.name == "B":
            assert one.read(1).shape == DATA.shape
            continue
        with pytest.raises(InputError, match="rename one, or take one away") as error:
            one.read(1)
        assert all(str(tmp_path / name) in str(error.value) for name in twins)


def test_a_series_and_a_file_of_one_name_are_refused(tmp_path: Path, write_series) -> None:
    write_series(tmp_path / "A", DATA, np.diag([-1, -1, 5, 1]))
    for name in ("A.nii.gz", "B.nii.gz"):
        save(tmp_path / name)
    for one in find_inputs(tmp_path)[:2]:
        with pytest.raises(InputError, match="rename one"):
            one.read(1)


def test_files_of_a_channel_twice_are_refused(tmp_path: Path) -> None:
    for name in ("A_0000.nii.gz", "A_0001.nii.gz", "A_0001.nii", "B_0000.nii.gz", "B_0001.nii.gz"):
        save(tmp_path / name)
    inputs = find_inputs(tmp_path, 2)
    assert [(one.name, len(one.files), one.namesake is None) for one in inputs] == [
        ("A", 2, False),
        ("A", 1, False),
        ("B", 2, True),
    ]


def test_volumes_that_differ_in_a_number_or_lie_deeper_are_no_channels_of_one_case(tmp_path: Path) -> None:
    images = pytest.importorskip("PIL.Image")
    for number in (9, 10, 11):
        (tmp_path / "photos").mkdir(exist_ok=True)
        images.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / f"photos/img_{number:03d}.png")
    assert names(tmp_path / "photos", 3) == ["img_009", "img_010", "img_011"]
    for name in ("p1_t1.nii", "p1_t2.nii", "deeper/p2_t1.nii", "deeper/p2_t2.nii"):
        save(tmp_path / "cases" / name)
    assert len(names(tmp_path / "cases", 2)) == 4
    assert names(tmp_path / "cases/deeper", 2) == ["deeper"]


def test_a_series_of_another_ending_is_one_volume_below_a_folder(tmp_path: Path, write_series) -> None:
    for path in write_series(tmp_path / "study/series", DATA, np.diag([-1, -1, 5, 1])):
        path.rename(path.with_suffix(".IMA"))
    save(tmp_path / "b.nii.gz")
    assert names(tmp_path) == ["b", "study/series"]


def test_a_series_that_goes_on_in_a_folder_below_is_not_cut_without_a_word(tmp_path: Path, write_series) -> None:
    paths = write_series(tmp_path / "a", DATA, np.diag([-1, -1, 5, 1]))
    (tmp_path / "a/more").mkdir()
    paths[-1].rename(tmp_path / "a/more" / paths[-1].name)
    said: list[str] = []
    assert [one.files for one in find_inputs(tmp_path / "a", note=said.append)] == [(tmp_path / "a",)]
    assert said == ["DICOM below its own files is left out, first in 'more'"]


def test_an_export_with_a_dicomdir_is_a_folder_of_series(tmp_path: Path, write_series) -> None:
    series = tmp_path / "DICOM/PAT0/STU0/SER0"
    for number, path in enumerate(write_series(series, DATA, np.diag([-1, -1, 5, 1]))):
        path.rename(path.with_name(f"IM{number}"))
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (series / "AUTORUN").write_text("no slice, though it comes first")
    said: list[str] = []
    assert [one.files for one in find_inputs(tmp_path, note=said.append)] == [(series,)]
    assert said == []
    assert series_folders(regular_files(tmp_path)) == [series]


def test_a_series_in_two_folders_is_said(tmp_path: Path, write_series) -> None:
    paths = write_series(tmp_path / "p/a", DATA, np.diag([-1, -1, 5, 1]))
    (tmp_path / "p/b").mkdir()
    paths[-1].rename(tmp_path / "p/b" / paths[-1].name)
    write_series(tmp_path / "q", DATA, np.diag([-1, -1, 5, 1]), SeriesInstanceUID="1.2.826.0.1.9")
    said: list[str] = []
    assert [one.name for one in find_inputs(tmp_path, note=said.append)] == ["p/a", "p/b", "q"]
    assert len(said) == 1
    assert said[0].startswith("'p/a' and 'p/b' hold slices of one DICOM series, and become a volume each")


def test_files_that_are_called_as_masks_are_counted(tmp_path: Path) -> None:
    for name in ("a", "b_seg", "mask3"):
        save(tmp_path / f"{name}.nii.gz")
    said: list[str] = []
    assert [one.name for one in find_inputs(tmp_path, note=said.append)] == ["a"]
    assert said == ["2 files are called as masks and are left out, first 'b_seg.nii.gz'"]
    (tmp_path / "a.nii.gz").unlink()
    assert [one.name for one in find_inputs(tmp_path, note=said.append)] == ["b_seg", "mask3"]
    assert len(said) == 1


def test_what_is_left_out_is_said(tmp_path: Path, write_series) -> None:
    for name in ("x", "y"):
        save(tmp_path / f"set/images/{name}.nii.gz")
        save(tmp_path / f"set/labels/{name}.nii.gz")
    save(tmp_path / "set/more/z.nii.gz")
    save(tmp_path / "scans/a.nii.gz")
    for folder in ("scans", "links"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "b.nii.gz").symlink_to(tmp_path / "set/more/z.nii.gz")
    said: list[str] = []
    assert [one.name for one in find_inputs(tmp_path / "set", note=said.append)] == ["x", "y"]
    assert [one.name for one in find_inputs(tmp_path / "scans", note=said.append)] == ["a"]
    write_series(tmp_path / "series/A", DATA, np.diag([-1, -1, 5, 1]))
    save(tmp_path / "series/A.nii.gz")
    assert [one.files for one in find_inputs(tmp_path / "series", note=said.append)] == [(tmp_path / "series/A",)]
    assert [text.partition(",")[0] for text in said] == [
        "1 of 5 files belong to no case and are left out",
        "1 links to folders or out of the folder are left out",
        "1 files have the names of series and are taken as their masks",
    ]
    said.clear()
    with pytest.raises(InputError, match="has no volume"):
        find_inputs(tmp_path / "links", note=said.append)
    assert "1 links to folders or out of the folder are left out" in said[0]


def test_a_data_set_whose_list_names_none_of_its_cases_has_no_volume(tmp_path: Path) -> None:
    for path in ("imagesTr/A_0000.nii.gz", "labelsTr/A.nii.gz"):
        save(tmp_path / path)
    listed = [{"image": "./imagesTr/B.nii.gz", "label": "./labelsTr/B.nii.gz"}]
    about = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "x": 1}, "numTraining": 1, "training": listed}
    (tmp_path / "dataset.json").write_text(json.dumps({**about, "file_ending": ".nii.gz"}))
    with pytest.raises(InputError, match="the folder has no volume"):
        find_inputs(tmp_path)


def test_more_files_than_channels_are_refused_unread(tmp_path: Path) -> None:
    files = (tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")  # nothing is there
    with pytest.raises(InputError, match="must have 1 channels with the 1 files beside it that are of one case, got 2"):
        Input("scan", files).read(1)
