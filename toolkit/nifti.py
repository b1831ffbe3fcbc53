"""NIfTI-1 and -2, plain or gzipped: the header is judged before the voxels are read."""

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from attunet.errors import InputError
from attunet.volume import Volume

NIFTI_SUFFIXES = (".nii", ".nii.gz")
MAX_VOXELS = 2**30
MAX_VOXEL_OFFSET = 2**24  # header extensions before the voxels
LARGEST_GZIP_RATIO = 1040  # deflate cannot shrink further than 1032 to 1
SPACING_RANGE_MM = (1e-6, 1e6)

# What nibabel, gzip and NumPy raise on files that are damaged or no NIfTI at all.
FILE_ERRORS = (
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    nib.spatialimages.HeaderTypeError,
    nib.wrapstruct.WrapStructError,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    struct.error,
    zlib.error,
)


def read_nifti(path: Path) -> Volume:
    """One channel `(1, X, Y, Z)` in the file's own dtype, or float32 where the header scales it.

    Raises InputError for a damaged file, other than 3D data (trailing axes of length 1 are dropped), a dtype that is not a real number,
    more than `MAX_VOXELS` voxels or more than the file can hold, an affine that is singular or not finite.
    """
    try:
        header = _read_header(path)
        shape = _checked_shape(path, header)
        image: Any = nib.load(path)
        scaled = image.dataobj.slope != 1 or image.dataobj.inter != 0
        data = image.get_fdata(dtype=np.float32, caching="unchanged") if scaled else np.asanyarray(image.dataobj)
        affine = np.asarray(image.affine, dtype=np.float64)
    except InputError:
        raise
    except FILE_ERRORS as error:
        raise InputError(f"{path}: cannot be read as NIfTI: {_one_line(error)}") from None
    if data.dtype.kind == "f" and data.dtype != np.float32:
        with np.errstate(over="ignore"):
            data = data.astype(np.float32)
    data = np.asarray(data, dtype=data.dtype.newbyteorder("=")).reshape(1, *shape)
    return Volume(data, _checked_affine(path, affine), header=image.header)


def _read_header(path: Path) -> nib.Nifti1Header:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as file:
        start = file.read(540)
    if len(start) < 348:
        raise InputError(f"{path}: cannot be read as NIfTI: a header has at least 348 bytes, got {len(start)}")
    if int.from_bytes(start[:4], "little") in (540, int.from_bytes(bytes((0, 0, 2, 28)), "little")):
        return nib.Nifti2Header(start[:540])
    return nib.Nifti1Header(start[:348])


def _checked_shape(path: Path, header: nib.Nifti1Header) -> tuple[int, int, int]:
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) < 2 or min(shape) < 1 or any(n != 1 for n in shape[3:]):
        raise InputError(f"{path}: must be a 3D image (or 4D with one frame), got the shape {shape}")
    shape = (*shape[:3], 1)[:3]
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise InputError(f"{path}: voxels must be real numbers, got the data type {header['datatype']}")
    voxels, offset = int(np.prod(shape, dtype=object)), float(header["vox_offset"])
    if voxels > MAX_VOXELS:
        raise InputError(f"{path}: at most {MAX_VOXELS:,} voxels are supported, the header says {voxels:,}")
    if not 0 <= offset <= MAX_VOXEL_OFFSET:
        raise InputError(f"{path}: voxels must start within the first {MAX_VOXEL_OFFSET:,} bytes, the header says {offset:g}")
    needed, present = int(offset) + voxels * dtype.itemsize, path.stat().st_size
    if needed > present * (LARGEST_GZIP_RATIO if path.name.lower().endswith(".gz") else 1):
        raise InputError(f"{path}: is cut short: the header says {needed:,} bytes, the file has {present:,}")
    return shape[0], shape[1], shape[2]


def _checked_affine(path: Path, affine: np.ndarray) -> np.ndarray:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = SPACING_RANGE_MM
    if not np.isfinite(affine).all() or spacing.min() < low or spacing.max() > high:
        raise InputError(f"{path}: the affine must be finite with voxels of {low:g} to {high:g} mm, got {spacing.tolist()}")
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-4:
        raise InputError(f"{path}: the affine must be invertible, got {affine[:3, :3].tolist()}")
    return affine


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:200]
