"""Analyze pairs are two files: SPM's third, `X.mat`, is never opened, and the reading says so."""

import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.io.readers import read_volume

VOXELS = np.arange(60, dtype=np.int16).reshape(5, 4, 3)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    nib.save(nib.Spm99AnalyzeImage(VOXELS, np.diag([-2, 2, 3, 1])), tmp_path / "A.hdr")
    (tmp_path / "A.mat").unlink()
    return tmp_path / "A.hdr"


def matrix(path: Path) -> None:
    from scipy.io import savemat

    savemat(path, {"M": np.array([[0, 3, 0, 0], [3, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1.0]])}, format="4")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "make",
    [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.write_bytes(bytes(200)), matrix],
    ids=["pipe", "device", "noise", "matrix"],
)
def test_the_matrix_beside_a_pair_is_not_opened(pair: Path, make) -> None:  # type: ignore[no-untyped-def]
    alone = read_volume(pair)
    assert "mat" not in alone.decisions[0].text
    make(pair.with_suffix(".mat"))
    volume = read_volume(pair)
    np.testing.assert_array_equal(volume.data, VOXELS[None])
    np.testing.assert_array_equal(volume.affine, alone.affine)
    assert ".mat" in volume.decisions[0].text


def test_a_range_of_values_in_the_header_is_no_scale_and_that_of_spm_is_told(pair: Path) -> None:
    header = bytearray(pair.read_bytes())
    struct.pack_into("<2f", header, 124, 200, 0)  # cal_max, cal_min
    struct.pack_into("<2i", header, 140, 2, 0)  # glmax, glmin
    struct.pack_into("<f", header, 112, 0)
    pair.write_bytes(header)
    volume = read_volume(pair)
    np.testing.assert_array_equal(volume.data[0], VOXELS)
    assert "scale" not in volume.decisions[0].text
    for offset in (0, 10, np.nan):  # SPM2 has an offset too
        struct.pack_into("<2f", header, 112, 0.5, offset)
        pair.write_bytes(header)
        volume = read_volume(pair)
        applied = float(np.nan_to_num(offset))
        np.testing.assert_array_equal(volume.data[0], VOXELS / 2 + applied)
        said = f"; its voxels are scaled by SPM's figures in the header, value * 0.5 + {applied:g}"
        assert volume.decisions[0].text.endswith(said)


@pytest.mark.parametrize("kind", [nib.AnalyzeImage, nib.Spm99AnalyzeImage, nib.Spm2AnalyzeImage, nib.Nifti1Pair])
def test_voxels_and_geometry_are_those_of_nibabel(kind, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    nib.save(kind(VOXELS, np.diag([-2, 2, 3, 1])), tmp_path / "A.hdr")
    (tmp_path / "A.mat").unlink(missing_ok=True)
    volume, theirs = read_volume(tmp_path / "A.hdr"), nib.load(tmp_path / "A.hdr")
    np.testing.assert_array_equal(volume.data[0], np.asanyarray(theirs.dataobj))
    np.testing.assert_array_equal(volume.affine, theirs.affine)
