"""Files of a case are given to a model by the names of its channels, in its order."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.errors import InputError
from attunet.sources.case_files import SourceOptions
from attunet.sources.channel_files import in_order
from attunet.sources.find_cases import find_cases
from attunet.sources.input import Input
from attunet.sources.inputs import find_inputs

NEEDED = ("t2", "t1")
LAYOUTS = {
    "roles": ("p1/t1.nii.gz", "p1/t2.nii.gz", "p2/t1.nii.gz", "p2/t2.nii.gz"),
    "roles after the case's name": ("p1/p1_T1.nii.gz", "p1/p1_T2.nii.gz", "p2/p2_T1.nii.gz", "p2/p2_T2.nii.gz"),
    "a third sequence": tuple(f"{case}/{role}.nii.gz" for case in ("p1", "p2") for role in ("adc", "t1", "t1ce", "t2")),
    "one folder": ("p1-t1.nii.gz", "p1-t2.nii.gz", "p2-t1.nii.gz", "p2-t2.nii.gz"),
}


def write(folder: Path, names: tuple[str, ...] | list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(5, 4, 3) % 3, np.eye(4)), folder / name)


def inputs(path: Path, needed: tuple[str, ...] = NEEDED) -> list[Input]:
    return find_inputs(path, len(needed), channels=needed)


def files(path: Path) -> list[tuple[str, list[str]]]:
    return [(one.name, [file.name.lower() for file in one.files]) for one in inputs(path)]


@pytest.mark.parametrize("masks", [False, True], ids=["without masks", "with masks"])
@pytest.mark.parametrize("names", LAYOUTS.values(), ids=LAYOUTS)
def test_files_are_taken_by_name_in_the_models_order(tmp_path: Path, names: tuple[str, ...], masks: bool) -> None:
    write(tmp_path, names)
    if masks:
        write(tmp_path, sorted({name.rsplit("1.", 1)[0].rstrip("tT") + "seg.nii.gz" for name in names if "1." in name}))
    found = files(tmp_path)
    assert [name for name, _ in found] == ["p1", "p2"]
    for _, own in found:
        assert [name.removesuffix(".nii.gz")[-2:] for name in own] == ["t2", "t1"]
    for one in inputs(tmp_path):
        assert one.read(2, NEEDED).data.shape == (2, 5, 4, 3)


@pytest.mark.parametrize("mask", ["seg.nii.gz", ""], ids=["with masks", "without masks"])
def test_a_case_that_lacks_a_channel_is_refused_alone(tmp_path: Path, mask: str) -> None:
    write(tmp_path, ["p1/t1.nii.gz", "p1/t2.nii.gz", "p2/t1.nii.gz", "p3/t1.nii.gz", "p3/t2.nii.gz"])
    if mask:
        write(tmp_path, [f"p{number}/{mask}" for number in (1, 2, 3)])
    first, second, third = inputs(tmp_path)
    assert [path.name for one in (first, third) for path in one.files] == 2 * ["t2.nii.gz", "t1.nii.gz"]
    with pytest.raises(InputError, match=r"p2/t1\.nii\.gz: the model needs the channels t2, t1, and this case has t1;"):
        second.check()


def test_other_sequences_are_refused_with_the_names_of_both(tmp_path: Path) -> None:
    write(tmp_path, [f"p{number}/{role}.nii.gz" for number in (1, 2) for role in ("adc", "dwi", "seg")])
    for one in inputs(tmp_path):
        with pytest.raises(InputError, match=r"needs the channels t2, t1, and this case has adc, dwi; .*CASE_0000"):
            one.read(2, NEEDED)
    for one in inputs(tmp_path, ()):
        assert [path.name for path in one.files] == ["adc.nii.gz", "dwi.nii.gz"]


def test_one_channel_without_masks_is_refused_with_the_names_that_are_needed(tmp_path: Path) -> None:
    write(tmp_path, ["p1/adc.nii.gz", "p1/dwi.nii.gz"])
    for one in inputs(tmp_path):
        with pytest.raises(InputError, match=r"must have 2 channels \(t2, t1\), got 1"):
            one.read(2, NEEDED)


def test_the_folder_of_one_case_is_ordered_or_refused(tmp_path: Path) -> None:
    folder = tmp_path / "BraTS-GLI-00001-000"
    write(folder, [f"{folder.name}-{role}.nii.gz" for role in ("seg", "t1c", "t1n", "t2f", "t2w")])
    (one,) = inputs(folder, ("t2w", "t1n", "t1c", "t2f"))
    assert [path.name[20:23] for path in one.files] == ["t2w", "t1n", "t1c", "t2f"]
    (other,) = inputs(folder, ("FLAIR", "T1w", "t1gd", "T2w"))
    with pytest.raises(InputError, match="this case has t1c, t1n, t2f, t2w"):
        other.check()


NUMBERED = [f"imagesTs/x_{case}_000{channel}.nii.gz" for case in (1, 2) for channel in (0, 1)]


@pytest.mark.parametrize("path", ["imagesTs", "imagesTs/x_1_0000.nii.gz"])
def test_numbered_channels_are_ordered_where_a_dataset_json_names_them(tmp_path: Path, path: str) -> None:
    write(tmp_path, NUMBERED)
    assert files(tmp_path / path)[0][1] == ["x_1_0000.nii.gz", "x_1_0001.nii.gz"]  # nothing tells the names
    described = tmp_path / "dataset.json"
    described.write_text(json.dumps({"channel_names": {"0": "T1", "1": "T2"}}))
    assert files(tmp_path / path)[0][1] == ["x_1_0001.nii.gz", "x_1_0000.nii.gz"]
    described.write_text(json.dumps({"channel_names": {"0": "zscore", "1": "zscore"}}))  # not names of channels
    assert files(tmp_path / path)[0][1] == ["x_1_0000.nii.gz", "x_1_0001.nii.gz"]
    described.write_text(json.dumps({"channel_names": {"0": "T1", "1": "ADC"}}))
    with pytest.raises(InputError, match="this case has T1, ADC"):
        inputs(tmp_path / path)[0].check()


def test_one_file_with_all_channels_keeps_its_order(tmp_path: Path) -> None:
    path = tmp_path / "four.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((5, 4, 3, 2), np.int16), np.eye(4)), path)
    (one,) = inputs(path)
    assert one.read(2, NEEDED).data.shape == (2, 5, 4, 3)


def test_a_list_of_files_is_ordered_by_names_that_tell_all_channels() -> None:
    paths = [Path("a/p_T1.nii.gz"), Path("b/p_t2.nii.gz")]
    assert in_order(paths, NEEDED) == paths[::-1]
    unknown = [Path("p_0000.nii.gz"), Path("p_0001.nii.gz")]
    for given, needed in ((unknown, NEEDED), (paths, ()), (paths[:1], NEEDED)):
        assert in_order(given, needed) == given
    for wrong in (["p_adc", "p_t1"], ["p_t1", "p_t1"], ["p_t1", "p_t2", "p_adc"]):
        with pytest.raises(InputError, match=f"needs the channels {', '.join(NEEDED)}, and this case has {wrong[0]}"):
            in_order([Path(f"{name}.nii.gz") for name in wrong], NEEDED)


def test_a_role_is_meant_before_those_that_contain_its_name(tmp_path: Path) -> None:
    write(tmp_path, [f"p{number}/{role}.nii.gz" for number in (1, 2) for role in ("a_t1", "seg", "t1", "t2")])
    assert files(tmp_path) == [("p1", ["t2.nii.gz", "t1.nii.gz"]), ("p2", ["t2.nii.gz", "t1.nii.gz"])]
    source = find_cases(tmp_path, SourceOptions(images=("T1", "a_")))
    assert source.channels == ("t1", "a_t1")
