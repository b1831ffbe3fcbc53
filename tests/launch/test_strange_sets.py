"""Data sets that nobody tuned for, from their files to predictions by the command alone:
no option says anything about the data.
"""

import json
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.store import open_store

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("torch")

SETTINGS = (
    "model.base_width=8",
    "model.depth=2",
    "optim.lr=5e-3",
    "optim.batch_size=4",
    "optim.ema_decay=0.8",
    "augment.enabled=false",
)
TINY = [
    word
    for setting in (*SETTINGS, "run.mixed_precision=no", "run.validate_every_epochs=1000")
    for word in ("--set", setting)
]


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
    said = {"labels": {str(v): n for n, v in names.items()}, "modality": {"0": "T1", "1": "T2"}}
    said = (
        said if form == "msd" else {"labels": names, "channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz"}
    )
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


def trained(attunet, folder: Path, source: Path, epochs: int) -> tuple[Path, list[str]]:
    """prepare, train, export and evaluate; the artefact and what prepare said."""
    prepared = attunet("prepare", source, folder / "store", "--folds", 2)
    assert prepared.code == 0, prepared.err
    for arguments in (
        ("train", folder / "store", folder / "run", "--fold", 0, "--set", f"optim.epochs={epochs}", *TINY),
        ("export", folder / "run", folder / "model.onnx"),
        (
            "evaluate",
            folder / "store",
            folder / "model.onnx",
            "--fold",
            0,
            "--out",
            folder / "results",
            "--latency-seconds",
            0.05,
        ),
    ):
        done = attunet(*arguments)
        assert done.code == 0, done.err
    (model,) = json.loads((folder / "results/results.json").read_text())["models"]
    assert model["dice"]["mean"] > 0.5
    return folder / "model.onnx", prepared.out.splitlines()


@pytest.mark.slow
def test_crops_of_two_modalities_with_values_of_their_own(attunet, tmp_path: Path) -> None:
    root = tmp_path / "Task77_Crops"
    crops(root, number=4, form="msd")
    source = tmp_path / "Task77_Crops.zip"  # as it is downloaded: an archive of one folder
    with zipfile.ZipFile(source, "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, path.relative_to(tmp_path))
    model, said = trained(attunet, tmp_path, source, 20)
    assert any("spacing 1 mm, window 64 × 64 pixels" in line and "Anterior, Posterior" in line for line in said)
    done = attunet("predict", model, root / "imagesTs", tmp_path / "predicted")
    assert done.code == 0, done.err
    (path,) = (tmp_path / "predicted").iterdir()
    assert path.name == "crop_000.nii.gz"
    assert set(np.unique(np.asarray(nib.load(path).dataobj))) == {0, 3, 200}
    done = attunet("predict", model, root / "imagesTs/crop_000_0000.nii.gz", tmp_path / "one.nii.gz")
    assert done.code == 0, done.err
    np.testing.assert_array_equal(
        np.asarray(nib.load(path).dataobj), np.asarray(nib.load(tmp_path / "one.nii.gz").dataobj)
    )


@pytest.mark.slow
def test_modalities_along_a_fourth_axis(attunet, tmp_path: Path) -> None:
    crops(tmp_path / "crops", number=4, form="msd")
    joined(tmp_path / "crops")
    model, _ = trained(attunet, tmp_path, tmp_path / "crops", 20)
    assert open_store(tmp_path / "store").spec.num_channels == 2
    done = attunet("predict", model, tmp_path / "crops/imagesTs", tmp_path / "predicted")
    assert done.code == 0, done.err
    (path,) = (tmp_path / "predicted").iterdir()
    given = nib.load(tmp_path / "crops/imagesTs/crop_000.nii.gz")
    assert (path.name, nib.load(path).shape) == ("crop_000.nii.gz", given.shape[:3])


def test_both_ways_of_describing_classes_give_one_store(attunet, tmp_path: Path) -> None:
    for form in ("msd", "nnunet"):
        crops(tmp_path / form, number=2, form=form)
        assert attunet("prepare", tmp_path / form, tmp_path / f"{form}-store", "--folds", 2).code == 0
    a, b = (open_store(tmp_path / f"{form}-store") for form in ("msd", "nnunet"))
    assert (a.classes, a.spec, [c.image_sha256 for c in a.cases]) == (
        b.classes,
        b.spec,
        [c.image_sha256 for c in b.cases],
    )
    assert (a.classes.names, a.classes.values) == (("background", "Anterior", "Posterior"), (0, 3, 200))


@pytest.mark.slow
def test_photographs_with_smoothed_masks(attunet, tmp_path: Path) -> None:
    photographs(tmp_path / "photos", 4)
    model, said = trained(attunet, tmp_path, tmp_path / "photos", 200)
    assert any("spacing as it is, window 64 × 64 pixels" in line for line in said)
    assert any("[mask-greys]" in line for line in said)
    done = attunet("predict", model, tmp_path / "photos/images", tmp_path / "predicted")
    assert done.code == 0, done.err
    paths = sorted((tmp_path / "predicted").iterdir())
    assert [path.name for path in paths] == [f"Bild {index} ä.png" for index in range(4)]
    for path in paths:
        photograph = Image.open(tmp_path / "photos/images" / f"{path.stem}.jpg")
        found = Image.open(path)
        assert (found.size, found.mode) == (photograph.size, "L")
        assert set(np.unique(np.asarray(found))) == {0, 255}
