"""Voxels behind a header of nibabel's: as nibabel scales them, in little more memory than they take themselves."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.io import gzip_file
from attunet.io.readers import read_volume

NOISE = np.random.default_rng(0).bytes(2**20)


def save(path: Path, shape: tuple[int, int, int], content: bytes, slope: float = 1, kind: str = "u1") -> Path:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.dtype(kind))
    header.set_data_shape(shape)
    header.set_sform(np.diag([2, 2, 3, 1]), 1)
    header["magic"], header["vox_offset"], header["scl_slope"], header["scl_inter"] = b"n+1", 352, slope, slope - 1
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + content, 1))
    return path


def test_a_header_that_claims_more_than_its_gzip_holds_takes_no_memory(tmp_path: Path, refused, little_memory) -> None:
    path = save(tmp_path / "a.nii.gz", (1000, 1000, 1000), NOISE)
    with little_memory():
        refused(path, "Expected 1000000000 bytes, got 1048576 bytes; copy or download it again")


def test_scaled_voxels_take_the_memory_of_the_result_and_their_own(tmp_path: Path, little_memory) -> None:
    path = save(tmp_path / "a.nii.gz", (400, 250, 200), bytes(20_000_000), slope=2)
    with little_memory(150):
        data = read_volume(path).data
    assert (data.dtype, data.min(), data.max()) == (np.float32, 1, 1)


@pytest.mark.parametrize("kind", ["u1", "i2", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("slope", [2, 0.37, 1e30])
def test_voxels_are_scaled_as_nibabel_scales_them(tmp_path: Path, kind: str, slope: float) -> None:
    content = np.resize(np.arange(120), 1_170_000).astype(kind).tobytes()
    path = save(tmp_path / "a.nii.gz", (130, 100, 90), content, slope, kind)
    expected = nib.load(path).get_fdata().astype(np.float32)
    np.testing.assert_array_equal(read_volume(path).data[0], expected)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_voxels_that_go_on_far_beyond_those_of_the_header_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused, ending: str
) -> None:
    monkeypatch.setattr(gzip_file, "MAX_TRAILING_BYTES", 2**20)
    path = save(tmp_path / "a.nii.gz", (10, 10, 10), bytes(1000 + 2**20))
    assert read_volume(path).shape == (10, 10, 10)  # a checksum is still compared
    path = save(path, (10, 10, 10), bytes(1001 + 2**20))
    if ending == ".nii":
        (tmp_path / "a.nii").write_bytes(gzip.decompress(path.read_bytes()))
    refused(tmp_path / f"a{ending}", "it goes on for more than 1,048,576 bytes behind what its header says; copy or")
