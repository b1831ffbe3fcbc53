"""MGH's flag and sizes, which nibabel repairs in silence."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.classes import Classes
from attunet.errors import InputError
from attunet.io.readers import read_volume
from attunet.io.writers import write_labels
from attunet.volumes.volume import Volume

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


def test_label_values_beyond_32_bits_are_not_written(tmp_path: Path) -> None:
    like, classes = Volume(np.zeros((1, 2, 2, 2)), np.eye(4)), Classes(("background", "a"), (0, 2**31))
    with pytest.raises(InputError, match=r"a\.mgz: MGH holds label values of 32 bits, got 0 to 2147483648"):
        write_labels(tmp_path / "a.mgz", np.eye(8, dtype=np.uint8)[0].reshape(2, 2, 2), classes, like)
