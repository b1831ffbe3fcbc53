"""NIfTI-1 and -2, plain or gzipped: the header is judged before the voxels are read."""

import gzip
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from nibabel.wrapstruct import WrapStructError

from attunet.errors import InputError
from attunet.volumes.volume import Volume

NIFTI_SUFFIXES = (".nii", ".nii.gz")
MAX_VOXELS = 2**30
MAX_VOXEL_OFFSET = 2**24  # header extensions before the voxels
LARGEST_GZIP_RATIO = 1040  # deflate cannot shrink further than 1032 to 1
MOST_TRAILING_MIB = 64
SPACING_RANGE_MM = (1e-6, 1e6)

# What nibabel, gzip and NumPy raise on files that are damaged or no NIfTI at all.
FILE_ERRORS = (
    ImageFileError,
    HeaderDataError,
    HeaderTypeError,
    WrapStructError,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    struct.error,
    zlib.error,
)


def read_nifti(path: Path, *, frames: bool = False) -> Volume:
    """`(C, X, Y, Z)` in the file's own dtype, or float32 where the header scales it; C is 1, or with `frames` the length of axis 4.

    Raises InputError for a damaged file, another shape (trailing axes of length 1 are dropped), a dtype that is not a real number,
    more than `MAX_VOXELS` voxels or more than the file can hold, an affine that is singular or not finite.
    """
    try:
        with LoggingOutputSuppressor(), warnings.catch_warnings(), np.errstate(all="ignore"), _open(path) as file:
            warnings.simplefilter("ignore")  # what matters is checked below
            header = _header(path, file.read(540))
            shape = _checked_shape(path, header, frames)
            # The header and the voxels alone: nibabel would parse what extensions hold, even DICOM.
            voxels = ArrayProxy(file, header, mmap=False)
            scaled = voxels.slope != 1 or voxels.inter != 0
            data = np.asanyarray(voxels, dtype=np.float32) if scaled else np.asanyarray(voxels)
            for _ in range(MOST_TRAILING_MIB):  # to the end, where gzip compares its checksum
                if not file.read(2**20):
                    break
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except InputError:
        raise
    except FILE_ERRORS as error:
        raise InputError(f"{path}: cannot be read as NIfTI: {one_line(error)}") from None
    if data.dtype.kind == "f" and data.dtype != np.float32:
        with np.errstate(over="ignore"):
            data = data.astype(np.float32)
    data = np.asarray(data, dtype=data.dtype.newbyteorder("=")).reshape(shape)
    return Volume(np.moveaxis(data, 3, 0), checked_affine(path, affine), header=header)


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """shape: `(C, X, Y, Z)`; dtype: of the stored voxels; is_scaled: whether a slope or an intercept makes float32 of them."""

    shape: tuple[int, int, int, int]
    dtype: np.dtype
    affine: np.ndarray
    is_scaled: bool


def read_nifti_header(path: Path, *, frames: bool = False) -> NiftiHeader:
    """The header alone, after the checks of `read_nifti`; of a gzipped file its first bytes are inflated."""
    try:
        with LoggingOutputSuppressor(), warnings.catch_warnings(), np.errstate(all="ignore"), _open(path) as file:
            warnings.simplefilter("ignore")
            header = _header(path, file.read(540))
            x, y, z, c = _checked_shape(path, header, frames)
            slope, intercept = header.get_slope_inter()
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except InputError:
        raise
    except FILE_ERRORS as error:
        raise InputError(f"{path}: cannot be read as NIfTI: {one_line(error)}") from None
    is_scaled = (slope if slope is not None else 1) != 1 or (intercept or 0) != 0
    return NiftiHeader((c, x, y, z), header.get_data_dtype(), checked_affine(path, affine), is_scaled)


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.name.lower().endswith(".gz") else path.open("rb")


def _is_version_2(start: bytes) -> bool:
    return start[:4] in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))


def _header(path: Path, start: bytes) -> nib.Nifti1Header:
    size = 540 if _is_version_2(start) else 348
    if len(start) < size:
        raise InputError(f"{path}: cannot be read as NIfTI: its header has {size} bytes, got {len(start)}")
    return nib.Nifti2Header(start) if size == 540 else nib.Nifti1Header(start[:348])


def _checked_shape(path: Path, header: nib.Nifti1Header, frames: bool) -> tuple[int, int, int, int]:
    """`(X, Y, Z, C)`"""
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) < 2 or min(shape) < 1 or any(n != 1 for n in shape[4 if frames else 3 :]):
        raise InputError(f"{path}: must be a 3D image (or 4D with one frame), got the shape {shape}")
    x, y, z, c = (*shape, 1, 1)[:4]
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise InputError(f"{path}: voxels must be real numbers, got the data type {header['datatype']}")
    voxels, offset = x * y * z * c, float(header["vox_offset"])
    if voxels > MAX_VOXELS:
        raise InputError(f"{path}: at most {MAX_VOXELS:,} voxels are supported, the header says {voxels:,}")
    if not 0 <= offset <= MAX_VOXEL_OFFSET:
        raise InputError(f"{path}: voxels must start within the first {MAX_VOXEL_OFFSET:,} bytes, the header says {offset:g}")
    needed, present = int(offset) + voxels * dtype.itemsize, path.stat().st_size
    if needed > present * (LARGEST_GZIP_RATIO if path.name.lower().endswith(".gz") else 1):
        raise InputError(f"{path}: is cut short: the header says {needed:,} bytes, the file has {present:,}")
    return x, y, z, c


def checked_affine(path: Path, affine: np.ndarray) -> np.ndarray:
    """The affine, where it is finite and invertible and its voxels have a size that exists."""
    with np.errstate(over="ignore"):
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = SPACING_RANGE_MM
    if not np.isfinite(affine).all() or spacing.min() < low or spacing.max() > high:
        raise InputError(f"{path}: the affine must be finite with voxels of {low:g} to {high:g} mm, got {spacing.tolist()}")
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-4:
        raise InputError(f"{path}: the affine must be invertible, got {affine[:3, :3].tolist()}")
    return affine


def one_line(error: Exception) -> str:
    """The message of a library's error, short enough to be part of a line."""
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:200]
