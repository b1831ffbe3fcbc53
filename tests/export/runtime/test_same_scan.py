"""A scan has the same labels flipped, with permuted axes, tilted, and as a DICOM series."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.launch.commands.predict import predict
from attunet.store import Store


@pytest.fixture(scope="module")
def labels(run: Path, small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> nib.Nifti1Image:
    """What the network finds in a case that it was not trained on."""
    out = tmp_path_factory.mktemp("same") / "labels.nii"
    predict(run, small_store.source_root / f"{small_store.split(0)[1][0]}-src.nii.gz", out)
    return nib.load(out)


@pytest.fixture
def scan(small_store: Store) -> nib.Nifti1Image:
    return nib.load(small_store.source_root / f"{small_store.split(0)[1][0]}-src.nii.gz")


def same_places(found: nib.Nifti1Image, expected: nib.Nifti1Image) -> np.ndarray:
    """The expected labels at every voxel of the other grid, looked up by its place in space."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in found.shape), [1], indexing="ij"), axis=-1)
    at = index.reshape(-1, 4) @ (np.linalg.inv(expected.affine) @ found.affine).T
    np.testing.assert_allclose(at, np.rint(at), atol=1e-3)
    return np.asarray(expected.dataobj)[tuple(np.rint(at[:, :3]).astype(int).T)].reshape(found.shape)


def test_the_network_is_no_trivial_one(labels: nib.Nifti1Image, small_store: Store) -> None:
    truth = small_store.read_source(small_store.split(0)[1][0])[1]
    found = np.asarray(labels.dataobj)
    assert set(np.unique(found)) == {0, 1, 2, 3, 4}
    assert (found == truth).mean() > 0.9


@pytest.mark.parametrize("turn", [[[0, -1], [1, -1], [2, 1]], [[2, 1], [0, 1], [1, 1]], [[1, -1], [2, -1], [0, 1]]])
def test_flipped_and_permuted(
    run: Path, labels: nib.Nifti1Image, scan: nib.Nifti1Image, tmp_path: Path, turn: list[list[int]]
) -> None:
    nib.save(scan.as_reoriented(np.array(turn)), tmp_path / "turned.nii.gz")
    predict(run, tmp_path / "turned.nii.gz", tmp_path / "out.nii.gz")
    found = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(found.affine, nib.load(tmp_path / "turned.nii.gz").affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(found.dataobj), same_places(found, labels))


def test_as_a_dicom_series(
    run: Path, labels: nib.Nifti1Image, scan: nib.Nifti1Image, tmp_path: Path, write_series
) -> None:
    flipped = scan.as_reoriented(np.array([[0, 1], [1, -1], [2, -1]]))
    write_series(tmp_path / "series", np.asarray(flipped.dataobj).astype(np.int16), flipped.affine)
    predict(run, tmp_path / "series", tmp_path / "out.nii.gz")
    found = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), same_places(found, labels))


def test_tilted_in_the_scanner(run: Path, labels: nib.Nifti1Image, scan: nib.Nifti1Image, tmp_path: Path) -> None:
    """The same voxels under an oblique affine: the same labels, under that affine."""
    angle = np.radians(20)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    nib.save(nib.Nifti1Image(np.asarray(scan.dataobj), turn @ scan.affine), tmp_path / "tilted.nii.gz")
    predict(run, tmp_path / "tilted.nii.gz", tmp_path / "out.nii.gz")
    found = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(found.affine, turn @ scan.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(labels.dataobj))
