"""Data sets that nobody tuned for, from files to predictions, without an option that says something about them."""

import json
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_trainings import set_options

from attunet.store import open_store

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("torch")

TINY = set_options(
    "model.base_width=8 optim.lr=5e-3 optim.ema_decay=0.8 augment.enabled=false run.validate_every_epochs=1000"
)


def ball(shape: tuple[int, ...], at: tuple[float, ...], radius: float) -> np.ndarray:
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij"))
    return ((grid - np.array(at).reshape(-1, *[1] * len(shape))) ** 2).sum(axis=0) < radius**2


def crops(root: Path, *, number: int, form: str) -> None:
    """Brain crops of two modalities, float, as nnU-Net keeps them; values and names that no other data set has."""
    rng = np.random.default_rng(7)
    for index in range(number):
        shape = (35 + index % 2, 50 - index, 12)
        front, back = ball(shape, (16, 15 + index, 6), 7), ball(shape, (18, 34 - index, 5), 8)
        labels = np.where(front, 3, np.where(back, 200, 0)).astype(np.uint8)
        for channel, (a, b) in enumerate([(900, 400), (0.2, 0.9)]):
            data = a * front + b * back + rng.normal(0, 0.1 * max(a, b), shape)
            for folder in ("imagesTr", "imagesTs")[: 1 + (index == 0)]:
                (root / folder).mkdir(parents=True, exist_ok=True)
                path = root / folder / f"crop_{index:03d}_{channel:04d}.nii.gz"
                nib.save(nib.Nifti1Image(data.astype(np.float32), np.diag([-1.0, -1.0, 1.0, 1])), path)
                path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7 what macOS leaves")
        (root / "labelsTr").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(labels, np.diag([-1.0, -1.0, 1.0, 1])), root / f"labelsTr/crop_{index:03d}.nii.gz")
    names = {"background": 0, "Anterior": 3, "Posterior": 200}
    said = {"labels": names, "channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz"}
    if form == "msd":
        said = {"labels": {str(v): n for n, v in names.items()}, "modality": {"0": "T1", "1": "T2"}}
    (root / "dataset.json").write_text(json.dumps({"name": "Crops", "numTraining": number, "training": [], **said}))


def photographs(root: Path, number: int) -> None:
    """JPEG photographs of several sizes, and black-and-white masks as PNG with edges that a program has smoothed."""
    rng = np.random.default_rng(8)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(number):
        shape = (60 + 9 * index, 96 - 5 * index)
        spot = ball(shape, (30 + index, 40 - index), 12)
        pixels = np.where(spot[:, :, None], (220, 60, 40), (60, 90, 120)) + rng.normal(0, 8, (*shape, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / f"images/Bild {index} ä.jpg")
        mask = Image.fromarray((255 * spot).astype(np.uint8)).resize(
            (2 * shape[1], 2 * shape[0]), Image.Resampling.BICUBIC
        )
        mask.resize((shape[1], shape[0]), Image.Resampling.BILINEAR).save(root / f"masks/Bild {index} ä.png")


def joined(root: Path) -> None:
    """The crops with both modalities in one file, along a fourth axis, as the Decathlon keeps them."""
    for first in sorted(root.glob("images*/crop_*_0000.nii.gz")):
        second = first.with_name(first.name.replace("_0000", "_0001"))
        images = [nib.load(path) for path in (first, second)]
        data = np.stack([np.asarray(image.dataobj) for image in images], axis=-1)
        nib.save(nib.Nifti1Image(data, images[0].affine), first.with_name(first.name.replace("_0000", "")))
        for path in (first, second, *root.rglob("._*")):
            path.unlink(missing_ok=True)


def trained(succeed, folder: Path, source: Path, epochs: int) -> tuple[Path, list[str]]:
    """prepare, train, export and evaluate; the artefact and what prepare said."""
    results = folder / "results"
    prepared = succeed("prepare", source, folder / "store", "--folds", 2)
    store, model = folder / "store", folder / "model.onnx"
    succeed("train", store, folder / "run", "--fold=0", f"--set=optim.epochs={epochs}", *TINY)
    succeed("export", folder / "run", model)
    succeed("evaluate", store, model, "--fold=0", "--latency-seconds=0.05", "--out", results)
    (row,) = json.loads((results / "results.json").read_text())["models"]
    assert row["dice"]["mean"] > 0.5
    return model, prepared.out.splitlines()


@pytest.mark.slow
@pytest.mark.usefixtures("no_measuring")
def test_crops_of_two_modalities_with_values_of_their_own(succeed, tmp_path: Path) -> None:
    root = tmp_path / "Task77_Crops"
    crops(root, number=4, form="msd")
    source = tmp_path / "Task77_Crops.zip"  # as it is downloaded: an archive of one folder
    with zipfile.ZipFile(source, "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, path.relative_to(tmp_path))
    model, said = trained(succeed, tmp_path, source, 20)
    assert any("spacing 1 mm, window 64 × 64 pixels" in line and "Anterior, Posterior" in line for line in said)
    succeed("predict", model, root / "imagesTs", tmp_path / "predicted")
    (path,) = (tmp_path / "predicted").glob("[!.]*")
    assert path.name == "crop_000.nii.gz"
    assert set(np.unique(np.asarray(nib.load(path).dataobj))) == {0, 3, 200}
    succeed("predict", model, root / "imagesTs/crop_000_0000.nii.gz", tmp_path / "one.nii.gz")
    np.testing.assert_array_equal(
        np.asarray(nib.load(path).dataobj), np.asarray(nib.load(tmp_path / "one.nii.gz").dataobj)
    )


@pytest.mark.slow
@pytest.mark.usefixtures("no_measuring")
def test_modalities_along_a_fourth_axis(succeed, tmp_path: Path) -> None:
    crops(tmp_path / "crops", number=4, form="msd")
    joined(tmp_path / "crops")
    model, _ = trained(succeed, tmp_path, tmp_path / "crops", 20)
    assert open_store(tmp_path / "store").spec.num_channels == 2
    succeed("predict", model, tmp_path / "crops/imagesTs", tmp_path / "predicted")
    (path,) = (tmp_path / "predicted").glob("[!.]*")
    given = nib.load(tmp_path / "crops/imagesTs/crop_000.nii.gz")
    assert (path.name, nib.load(path).shape) == ("crop_000.nii.gz", given.shape[:3])


def test_both_ways_of_describing_classes_give_one_store(succeed, tmp_path: Path) -> None:
    for form in ("msd", "nnunet"):
        crops(tmp_path / form, number=2, form=form)
        succeed("prepare", tmp_path / form, tmp_path / f"{form}-store", "--folds", 2)
    a, b = (open_store(tmp_path / f"{form}-store") for form in ("msd", "nnunet"))
    assert (a.classes, a.spec) == (b.classes, b.spec)
    assert [case.image_sha256 for case in a.cases] == [case.image_sha256 for case in b.cases]
    assert (a.classes.names, a.classes.values) == (("background", "Anterior", "Posterior"), (0, 3, 200))


@pytest.mark.slow
@pytest.mark.usefixtures("no_measuring")
def test_photographs_with_smoothed_masks(succeed, tmp_path: Path) -> None:
    photographs(tmp_path / "photos", 4)
    model, said = trained(succeed, tmp_path, tmp_path / "photos", 200)
    assert any("spacing as it is, window 96 × 96 pixels" in line for line in said)
    assert any("[mask-greys]" in line for line in said)
    succeed("predict", model, tmp_path / "photos/images", tmp_path / "predicted")
    paths = sorted((tmp_path / "predicted").glob("[!.]*"))
    assert [path.name for path in paths] == [f"Bild {index} ä.png" for index in range(4)]
    for path in paths:
        photograph = Image.open(tmp_path / "photos/images" / f"{path.stem}.jpg")
        found = Image.open(path)
        assert (found.size, found.mode) == (photograph.size, "L")
        assert set(np.unique(np.asarray(found))) == {0, 255}
