"""Inputs that people really have, through `attunet prepare` and `attunet predict`:
read as they are meant, or refused in one line.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from attunet.store import Store, open_store

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("pydicom")
pytest.importorskip("torch")

Labels = dict[str, np.ndarray]  # class indices by case
TINY = (
    "model.base_width=8",
    "model.depth=2",
    "optim.lr=5e-3",
    "optim.batch_size=4",
    "optim.ema_decay=0.8",
    "augment.enabled=false",
)
SETTINGS = (*TINY, "optim.epochs=5", "run.mixed_precision=no", "run.validate_every_epochs=1000")
SHORT, NEGATIVE = 200, -1  # label values that no 8-bit type holds together


def values_of(indices: np.ndarray) -> np.ndarray:
    return np.array([0, SHORT, NEGATIVE], np.int16)[indices]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, made: SimpleNamespace) -> Path:
    """A small network that finds both organs, whose label values are 200 and -1."""
    from attunet.launch.cli import cli
    from attunet.launch.exit_codes import run_command

    folder = tmp_path_factory.mktemp("values")
    for i in range(4):
        image, labels = made.body(i, (24, 20, 24))
        made.save_nifti(folder / f"s/images/c{i}.nii.gz", image)
        made.save_nifti(folder / f"s/labels/c{i}.nii.gz", values_of(labels))
    calls = (
        ("prepare", folder / "s", folder / "store", "--folds", 2),
        (
            "train",
            folder / "store",
            folder / "run",
            "--fold",
            "0",
            *(word for setting in SETTINGS for word in ("--set", setting)),
        ),
    )
    for call in calls:
        assert run_command(cli, "attunet", [str(word) for word in call]) == 0
    return folder / "run"


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mgz", ".nrrd", ".mha"])
def test_label_values_come_back_exactly(
    attunet, made: SimpleNamespace, model: Path, tmp_path: Path, ending: str
) -> None:
    from attunet.export.load_model import load_model
    from attunet.io.readers import read_mask, read_volume
    from attunet.io.writers import WRITERS

    network, (image, _) = load_model(model), made.body(9)
    scan = made.save_nifti(tmp_path / "scan.nii.gz", image)
    if ending not in (".nii.gz", ".nii"):
        WRITERS[ending](tmp_path / f"scan{ending}", image, read_volume(scan))
        scan = tmp_path / f"scan{ending}"
    done = attunet("predict", model, scan, tmp_path / f"out{ending}")
    assert done.code == 0, done.err
    found = read_mask(tmp_path / f"out{ending}").data[0]
    assert set(np.unique(found)) == {0, SHORT, NEGATIVE}
    np.testing.assert_array_equal(
        found, np.array(network.classes.values)[network.predict_prepared(network.prepare(read_volume(scan)))]
    )


def test_pictures_cannot_hold_them_and_say_so(attunet, made: SimpleNamespace, model: Path, tmp_path: Path) -> None:
    made.save_picture(tmp_path / "scan.png", made.plane(0)[0])
    done = attunet("predict", model, tmp_path / "scan.png", tmp_path / "out.png")
    assert done.code in (1, 2)
    assert "a picture holds label values from 0 to 65535" in done.err
    assert done.err.count("\n") == 1


# -------------------------------------------------------------- sets for prepare


def two_folders(
    made: SimpleNamespace,
    root: Path,
    number: int = 4,
    shape: tuple[int, int, int] = (24, 20, 4),
    mm: tuple[float, ...] = (2, 2, 6),
) -> Labels:
    truth = {}
    for i in range(number):
        image, truth[f"c{i}"] = made.body(i, shape)
        for kind, array in (("images", image), ("labels", truth[f"c{i}"])):
            made.save_nifti(root / f"{kind}/c{i}.nii.gz", array, made.affine_of(mm))
    return truth


def one_slice(made: SimpleNamespace, root: Path) -> Labels:
    return two_folders(made, root, shape=(48, 40, 1), mm=(2, 2, 1))


def pictures(made: SimpleNamespace, root: Path, mask_of: Callable[[int, np.ndarray], Any], number: int = 4) -> Labels:
    """Grey pictures, with masks that `mask_of` makes of the labels (rows, columns)."""
    truth = {}
    for i in range(number):
        picture, labels = made.plane(i)
        made.save_picture(root / f"images/p{i}.png", picture)
        made.save_picture(root / f"masks/p{i}.png", mask_of(i, labels))
        truth[f"p{i}"] = labels.T[:, :, None]
    return truth


def palettes_in_another_order(made: SimpleNamespace, root: Path) -> Labels:
    colours = {0: (0, 0, 0), 1: (0, 255, 0), 2: (255, 0, 0)}
    orders = [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1)]

    def mask_of(i: int, labels: np.ndarray) -> Any:
        mask = Image.fromarray(np.argsort(orders[i]).astype(np.uint8)[labels])
        mask.putpalette([part for k in orders[i] for part in colours[k]])
        return mask

    return pictures(made, root, mask_of)


def object_in_alpha(made: SimpleNamespace, root: Path) -> Labels:
    def mask_of(_: int, labels: np.ndarray) -> np.ndarray:
        white = np.full(labels.shape, 255, np.uint8)
        return np.dstack([white, white, white, (255 * (labels > 0)).astype(np.uint8)])

    return {case: (labels > 0).astype(np.uint8) for case, labels in pictures(made, root, mask_of).items()}


def exif_orientation(made: SimpleNamespace, root: Path) -> Labels:
    truth = {}
    for i in range(4):
        picture, labels = made.plane(i, organs={1: (-0.45, 0.4, 0, 0.33)})
        tag = Image.Exif()
        tag[0x0112] = 3
        stored = Image.fromarray(picture).convert("RGB").transpose(Image.Transpose.ROTATE_180)
        made.save_picture(root / f"images/p{i}.jpg", stored, exif=tag, quality=95)
        made.save_picture(root / f"masks/p{i}.png", (255 * labels).astype(np.uint8))
        truth[f"p{i}"] = labels.T[:, :, None]
    return truth


def a_file_per_organ(made: SimpleNamespace, root: Path) -> Labels:
    truth = {}
    for i in range(3):
        image, truth[f"s{i:04d}"] = made.body(i)
        made.save_nifti(root / f"s{i:04d}/ct.nii.gz", image)
        for value, organ in ((1, "liver"), (2, "spleen")):
            made.save_nifti(
                root / f"s{i:04d}/segmentations/{organ}.nii.gz", (truth[f"s{i:04d}"] == value).astype(np.uint8)
            )
    return truth


def several_files_of_a_patient(made: SimpleNamespace, root: Path) -> Labels:
    truth = {}
    for patient in range(1, 4):
        image, labels = made.body(patient)
        for z in range(3):
            name = f"patient{patient:03d}_slice_{z:02d}"
            made.save_picture(root / f"images/{name}.png", made.grey(image[:, :, z]))
            made.save_picture(root / f"masks/{name}.png", (255 * (labels[:, :, z].T > 0)).astype(np.uint8))
            truth[name] = (labels[:, :, z : z + 1] > 0).astype(np.uint8)
    return truth


def three_greys_smoothed(made: SimpleNamespace, root: Path) -> Labels:
    organs = {1: (-0.1, 0.1, 0, 0.34), 2: (-0.1, 0.1, 0, 0.22)}
    truth = {}
    for i in range(4):
        picture, labels = made.plane(i, (96, 80, 1), organs)
        mask = Image.fromarray(np.array([0, 128, 255], np.uint8)[labels])
        mask = mask.resize((384, 320), Image.Resampling.BICUBIC).resize((96, 80), Image.Resampling.BILINEAR)
        made.save_picture(root / f"images/p{i}.png", picture)
        made.save_picture(root / f"masks/p{i}.png", mask)
        truth[f"p{i}"] = labels.T[:, :, None]
    return truth


def kits(made: SimpleNamespace, root: Path) -> Labels:
    truth = {}
    for i in range(3):
        image, truth[f"case_{i:05d}"] = made.body(i)
        for name, array in (("imaging", image), ("segmentation", truth[f"case_{i:05d}"])):
            made.save_nifti(root / f"data/case_{i:05d}/{name}.nii.gz", array)
    return truth


def brats(made: SimpleNamespace, root: Path) -> Labels:
    truth = {}
    for i in range(3):
        for visit in range(2):
            name = f"BraTS-GLI-{i:05d}-{visit:03d}"
            image, truth[name] = made.body(10 * i + visit)
            for k, sequence in enumerate(("t1c", "t1n", "t2f", "t2w")):
                made.save_nifti(root / name / f"{name}-{sequence}.nii.gz", (image + 10 * k).astype(np.int16))
            made.save_nifti(root / name / f"{name}-seg.nii.gz", truth[name])
    return truth


def acdc(made: SimpleNamespace, root: Path) -> Labels:
    truth = {}
    for patient in (1, 2, 3):
        here, name = root / f"training/patient{patient:03d}", f"patient{patient:03d}"
        frames = {frame: made.body(100 * patient + frame) for frame in (1, 12)}
        made.save_nifti(here / f"{name}_4d.nii.gz", np.stack([image for image, _ in frames.values()], -1))
        for frame, (image, labels) in frames.items():
            made.save_nifti(here / f"{name}_frame{frame:02d}.nii.gz", image)
            made.save_nifti(here / f"{name}_frame{frame:02d}_gt.nii.gz", labels)
            truth[f"training_{name}_{name}_frame{frame:02d}"] = labels
        (here / "Info.cfg").write_text("ED: 1\nES: 12\n")
    return truth


def training_list(made: SimpleNamespace, root: Path) -> Labels:
    truth = {}
    for i in range(3):
        image, truth[f"c{i}"] = made.body(i)
        made.save_nifti(root / f"imagesTr/c{i}.nii.gz", image)
        made.save_nifti(root / f"labelsTr/c{i}.nii.gz", truth[f"c{i}"])
    listed = [{"image": f"./imagesTr/c{i}.nii.gz", "label": f"./labelsTr/c{i}.nii.gz"} for i in range(2)]
    text = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "a", "2": "b"}, "training": listed}
    (root / "dataset.json").write_text(json.dumps(text))
    del truth["c2"]
    return truth


SETS = {  # with the patients of each, its channels, and a part of what prepare says
    "one slice": (one_slice, 4, 1, "4 cases, 4 slices"),
    "palettes in another order": (
        palettes_in_another_order,
        4,
        1,
        "a colour is a class, the same in all files: #00ff00, #ff0000",
    ),
    "the object in alpha": (object_in_alpha, 4, 1, "alpha is the mask"),
    "EXIF orientation": (exif_orientation, 4, 3, "turned as their EXIF orientation says"),
    "a file per organ": (a_file_per_organ, 3, 1, "each mask file is a class by its name: liver, spleen"),
    "several files of a patient": (several_files_of_a_patient, 3, 1, "3 patients for 9 cases"),
    "three greys, smoothed": (three_greys_smoothed, 4, 1, "the greys 0, 128, 255 are classes"),
    "KiTS": (kits, 3, 1, "3 cases"),
    "BraTS": (brats, 3, 4, "the channels are t1c, t1n, t2f, t2w"),
    "ACDC": (acdc, 3, 1, "3 of 9 images have several moments and no mask and are left out"),
    "a training list": (
        training_list,
        2,
        1,
        "1 of 3 cases are not in the training list of dataset.json and are left out: c2",
    ),
}
CHANNELS = {"BraTS": ["t1c", "t1n", "t2f", "t2w"], "a training list": ["CT"]}  # where the source says their names
EDGES = ("three greys, smoothed",)  # whose borders the smoothing has moved by a pixel


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_understood_as_it_is_meant(attunet, made: SimpleNamespace, tmp_path: Path, name: str) -> None:
    build, patients, channels, words = SETS[name]
    truth = build(made, tmp_path / "s")
    done = attunet("prepare", tmp_path / "s", tmp_path / "store", "--folds", 2)
    assert done.code == 0, done.err
    assert words in done.out
    store: Store = open_store(tmp_path / "store")
    assert sorted(case.name for case in store.cases) == sorted(truth)
    assert len({case.patient for case in store.cases}) == patients
    assert store.spec.num_channels == channels
    assert list(store.channels) == CHANNELS.get(name, [])
    for case, expected in truth.items():
        volume, labels = store.read_source(case)
        assert labels is not None
        assert (labels == expected).mean() > 0.97 if name in EDGES else np.array_equal(labels, expected)
        image, brightest = volume.data[0], expected == expected.max()
        assert image[brightest].mean() > image[expected == 0].mean()  # image and mask belong together


def test_voxel_sizes_that_contradict_each_other_are_refused_and_chosen(
    attunet, made: SimpleNamespace, tmp_path: Path
) -> None:
    two_folders(made, tmp_path / "s")
    for path in (tmp_path / "s").rglob("*.nii.gz"):
        image = nib.load(path)
        changed = nib.Nifti1Image(np.asarray(image.dataobj), made.affine_of((0.8, 0.8, 5)))
        changed.set_qform(made.affine_of((0.8, 0.8, 5)), code=1)
        changed.set_sform(made.affine_of((1, 1, 1)), code=1)
        changed.header["pixdim"][1:4] = (0.8, 0.8, 5)
        nib.save(changed, path)
    refused = attunet("prepare", tmp_path / "s", tmp_path / "store", "--folds", 2)
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert (
        "the sform has voxels of 1 × 1 × 1 mm, qform and pixdim of 0.8 × 0.8 × 5 mm; choose one with --read"
        in refused.err
    )
    for reading, spacing in (("sform", (1, 1, 1)), ("pixdim", (0.8, 0.8, 5))):
        done = attunet(
            "prepare", tmp_path / "s", tmp_path / reading, "--folds", 2, "--read", f"nifti-geometry={reading}"
        )
        assert done.code == 0, done.err
        assert open_store(tmp_path / reading).cases[0].spacing == pytest.approx(spacing)


# -------------------------------------------------------------- series for predict


def predicted(attunet, model: Path, source: Path, out: Path, *options: object) -> tuple[np.ndarray, str]:
    done = attunet("predict", model, source, out, *options)
    assert done.code == 0, done.err
    return np.asarray(nib.as_closest_canonical(nib.load(out)).dataobj), done.out


def scan_of(made: SimpleNamespace, tmp_path: Path) -> tuple[np.ndarray, Path]:
    """A scan with values from -330 on, and its NIfTI file."""
    image, _ = made.body(3)
    true = (image * 1.2 - 300).astype(np.int16)
    return true, made.save_nifti(tmp_path / "scan.nii.gz", true)


def test_twelve_signed_bits_are_the_values_of_the_same_nifti(
    attunet, made, model: Path, tmp_path: Path, write_series
) -> None:
    true, scan = scan_of(made, tmp_path)
    stored = (true.astype(np.int32) & 0x0FFF).astype(np.uint16).view(np.int16)
    write_series(tmp_path / "series", stored, made.affine_of(), BitsStored=12, HighBit=11, PixelRepresentation=1)
    found, said = predicted(attunet, model, tmp_path / "series", tmp_path / "a.nii.gz")
    expected, _ = predicted(attunet, model, scan, tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(found, expected)
    assert set(np.unique(found)) == {0, SHORT, NEGATIVE}
    assert "decided:" in said
    assert "12 of 16 bits are values" in said


def test_files_without_a_preamble_are_slices_like_the_others(
    attunet, made, model: Path, tmp_path: Path, write_series
) -> None:
    true, scan = scan_of(made, tmp_path)
    paths = write_series(tmp_path / "series", true, made.affine_of())
    for path in paths[-2:]:
        path.write_bytes(path.read_bytes()[132:])
    found, said = predicted(attunet, model, tmp_path / "series", tmp_path / "a.nii.gz")
    expected, _ = predicted(attunet, model, scan, tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(found, expected)
    assert "files without the 128-byte preamble are read too" in said


def test_predict_takes_the_series_that_is_chosen(attunet, made, model: Path, tmp_path: Path, write_series) -> None:
    true, scan = scan_of(made, tmp_path)
    write_series(tmp_path / "series", true, made.affine_of(), SeriesNumber="3", SeriesDescription="portal venous")
    scout = write_series(
        tmp_path / "scout", true[:, :, :1], made.affine_of(), SeriesInstanceUID="1.2.9", SeriesNumber="1"
    )
    scout[0].rename(tmp_path / "series/scout.dcm")
    refused = attunet("predict", model, tmp_path / "series", tmp_path / "out.nii.gz")
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "holds 2 DICOM series; choose one with --series NUMBER" in refused.err
    assert "3 'portal venous' (MR, 4 slices of 20 × 24)" in refused.err
    found, _ = predicted(attunet, model, tmp_path / "series", tmp_path / "a.nii.gz", "--series", "Portal")
    expected, _ = predicted(attunet, model, scan, tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(found, expected)
