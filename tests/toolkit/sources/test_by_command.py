"""Inputs that people really have, through `attunet prepare` and `attunet predict`:
read as they are meant, or refused in one line.
"""

from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from attunet.store import open_store

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


def two_folders(made: SimpleNamespace, root: Path) -> None:
    for i in range(4):
        for kind, array in zip(("images", "labels"), made.body(i), strict=True):
            made.save_nifti(root / f"{kind}/c{i}.nii.gz", array)


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
