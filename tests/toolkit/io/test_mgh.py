"""MGH's flag and sizes, which nibabel repairs in silence."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.io.readers import read_volume

AFFINE = np.array([[-2.0, 0, 0, 4], [0, 0, 1.5, 2], [0, -3, 0, 6], [0, 0, 0, 1]])


def changed(path: Path, at: int, content: bytes) -> Path:
    nib.save(nib.freesurfer.MGHImage(np.arange(120, dtype=np.int32).reshape(6, 5, 4), AFFINE), path)
    data = bytearray(path.read_bytes())
    data[at : at + len(content)] = content
    path.write_bytes(data)
    return path


def test_a_direction_that_is_not_valid_is_a_decision(tmp_path: Path) -> None:
    valid = read_volume(changed(tmp_path / "a.mgh", 28, b"\0\1"))
    np.testing.assert_allclose(valid.affine, AFFINE)
    assert (valid.is_oriented, valid.decisions) == (True, ())
    volume = read_volume(changed(tmp_path / "b.mgh", 28, b"\0\0"))
    assert (volume.is_oriented, volume.spacing) == (False, (1, 1, 1))
    assert [decision.rule for decision in volume.decisions] == ["mgh-orientation"]


@pytest.mark.parametrize("size", [0.0, -2.0, float("nan")])
def test_voxel_sizes_are_above_0(tmp_path: Path, refused: Callable[..., str], size: float) -> None:
    path = changed(tmp_path / "a.mgh", 30, np.array(size, ">f4").tobytes())
    refused(path, "voxel sizes must be above 0|the affine must be finite|cannot be read as MGH")
