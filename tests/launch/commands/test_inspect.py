"""What `attunet inspect` says of what users have: a line for what cannot be read, and of a patient nothing."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from attunet.sources.find_cases import LAYOUTS
from attunet.sources.splits import Splits
from attunet.store import Store, open_store
from attunet.system.atomic_files import write_folder

PLANTED = {
    "PatientName": "Mustermann^Erika",
    "PatientID": "SSN-831-77",
    "PatientBirthDate": "19640813",
    "StudyDate": "20190307",
}


def test_a_case_that_cannot_be_read_is_a_line_and_the_others_are_drawn(attunet, source: Path, tmp_path: Path) -> None:
    (source / "02-T2SPIR-src.nii.gz").write_bytes(b"no scan")
    image = nib.load(source / "03-T2SPIR-mask.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), source / "03-T2SPIR-mask.nii.gz")
    done = attunet("inspect", source, "--picture", tmp_path / "sheet.png")
    assert (done.code, done.err) == (2, f"error: {source}: 1 error(s), named above\n")
    assert "error: " in done.out
    assert "02-T2SPIR-src.nii.gz: cannot be read as NIfTI" in done.out
    assert "warning: 03-T2SPIR: the mask is empty [empty-mask]" in done.out.splitlines()
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_takes_no_other_file_s_place(attunet, source: Path, tmp_path: Path) -> None:
    done = attunet("inspect", source, "--picture", tmp_path / "model.onnx")
    assert (done.code, done.err) == (2, f"error: {tmp_path}/model.onnx: must be a file name that ends in .png\n")
    done = attunet("inspect", source, "--augmented", source / "01.png")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"{source}/01.png: must lie outside of {source}" in done.err


@pytest.mark.parametrize("option", ["--picture", "--augmented"])
def test_a_picture_of_a_store_takes_the_place_of_no_scan_that_it_was_made_of(
    attunet, tmp_path: Path, option: str
) -> None:
    source, random = tmp_path / "pictures", np.random.default_rng(0)
    for number in range(4):
        image, mask = random.integers(0, 256, (64, 64), np.uint8), np.zeros((64, 64), np.uint8)
        mask[16:40, 16:40] = 1
        for folder, array in (("images", image), ("masks", mask)):
            (source / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(source / folder / f"{number}.png")
    scan = source / "images/0.png"
    kept = scan.read_bytes()
    for name, options in (("named", ()), ("numbered", ("--pseudonymise", tmp_path / "key.csv"))):
        assert attunet("prepare", source, tmp_path / name, "--folds", 2, *options).code == 0
    done = attunet("inspect", tmp_path / "named", option, source / "new.png")
    assert (done.code, done.err.count("must lie outside of")) == (2, 1)
    for name in ("named", "numbered"):
        done = attunet("inspect", tmp_path / name, option, scan)
        assert (done.code, done.err.count("is a file that")) == (2, 1)
    assert scan.read_bytes() == kept


def test_a_page_or_a_checkpoint_is_no_store(attunet, tmp_path: Path) -> None:
    write_folder(tmp_path / "page", {"index.html": lambda path: path.write_text("")})
    done = attunet("inspect", tmp_path / "page")
    assert (done.code, done.err) == (
        2,
        f"error: {tmp_path}/page: is no store, but a checkpoint of a run or a page of `attunet web`\n",
    )


def test_a_store_names_its_test_set(attunet, small_store: Store, tmp_path: Path) -> None:
    assert "test set" not in attunet("inspect", small_store.path).out
    (first, *others), path = small_store.splits.folds, shutil.copytree(small_store.path, tmp_path / "store")
    (path / "splits.json").write_text(json.dumps(Splits(tuple(others), first).to_json()))
    told = attunet("inspect", path).out
    (line,) = [line for line in told.splitlines() if line.startswith("  test set  ")]
    names = [case.name for case in small_store.cases if case.patient in first]
    assert line == f"  test set  {', '.join(names)}, in no fold"


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


def test_a_picture_of_what_has_no_cases_is_refused(attunet, source: Path, tmp_path: Path) -> None:
    for path in (source / "01-T2SPIR-src.nii.gz", tmp_path / "model.onnx", tmp_path / "runs"):
        (tmp_path / "runs/a/checkpoints").mkdir(parents=True, exist_ok=True)
        (tmp_path / "model.onnx").touch()
        done = attunet("inspect", path, "--picture", tmp_path / "sheet.png")
        assert done.code == 2
        assert f"--picture: is drawn of the cases of a source or a store, and {path} is neither" in done.err


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


def test_decisions_are_printed_kept_in_the_store_and_chosen_otherwise(attunet, succeed, tmp_path: Path) -> None:
    images = pytest.importorskip("PIL.Image")
    for number in range(2):
        picture, mask = np.zeros((40, 50), np.uint8), np.zeros((40, 50, 4), np.uint8)
        picture[number, :] = 200
        mask[..., :3], mask[5:15, 5 + number : 20, 3] = 255, 255
        for folder, array in (("images", picture), ("masks", mask)):
            (tmp_path / "s" / folder).mkdir(parents=True, exist_ok=True)
            images.fromarray(array).save(tmp_path / f"s/{folder}/p{number}x.png")
    line = (
        "decided: alpha is the mask, since what is painted has one colour (2 of 2 cases; otherwise: --read "
        "alpha-mask=drop) [alpha-mask]"
    )
    done = succeed("prepare", tmp_path / "s", tmp_path / "store", "--folds", 2)
    for printed in (done, attunet("inspect", tmp_path / "s"), attunet("inspect", tmp_path / "store")):
        assert line in printed.out.splitlines()
    done = attunet("prepare", tmp_path / "s", tmp_path / "other", "--read", "alpha-mask=drop")
    assert (done.code, "no mask has the value 0" in done.err) == (2, True)
    for wrong, rule in (
        ("alpha=drop", "the rule must be one of"),
        ("alpha-mask=maybe", "alpha-mask must be one of mask, drop"),
    ):
        done = attunet("prepare", tmp_path / "s", tmp_path / "other", "--read", wrong)
        assert (done.code, rule in done.err) == (2, True)
    assert not (tmp_path / "other").exists()


def test_images_and_masks_are_chosen_by_options(succeed, tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 99, (20, 20, 4)).astype(np.int16)
    for number in range(2):
        for name, array in (("t1", data), ("t2", data + 9), ("seg_a", data > 80), ("seg_b", data > 90)):
            path = tmp_path / f"s/case{number}/{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = (array + number).astype(np.int16) if "t" in name else array.astype(np.uint8)
            nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    options = ("--images", "t2", "--masks", "seg_b", "--folds", 2)
    succeed("prepare", tmp_path / "s", tmp_path / "store", *options)
    store = open_store(tmp_path / "store")
    assert (store.spec.num_channels, store.classes.foreground) == (1, ("foreground",))
    np.testing.assert_array_equal(store.read_source("case0")[0].data[0], data + 9)
    np.testing.assert_array_equal(store.read_source("case0")[1], data > 90)
