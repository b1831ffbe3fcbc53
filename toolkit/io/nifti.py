"""NIfTI-1 and -2, plain or gzipped: the header is judged before the voxels are read."""

import gzip
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from nibabel.wrapstruct import WrapStructError

from attunet.decisions import Decision
from attunet.errors import InputError
from attunet.io.nifti_header import Geometry, read_geometry
from attunet.io.reading import (
    FILE_ERRORS,
    INTENSITIES,
    MAX_DEFLATE_RATIO,
    ReadOptions,
    check_real_numbers,
    check_voxels,
    checked_affine,
    quiet_nibabel,
)
from attunet.io.refusal import AGAIN, refusal
from attunet.volumes.volume import Volume

NIFTI_SUFFIXES = (".nii.gz", ".nii")  # the first is the one for new files
MAX_VOXEL_OFFSET = 2**24  # bytes of header extensions before the voxels
MAX_TRAILING_MIB = 64
NIBABEL_ERRORS = (*FILE_ERRORS, ImageFileError, HeaderDataError, HeaderTypeError, WrapStructError)


def read_nifti(path: Path, options: ReadOptions) -> Volume:
    """Reads a NIfTI file.

    Args:
        path: a `.nii` or `.nii.gz` file.
        options: an image's axis 4 (or 5, as vectors are stored) holds channels; a mask has one.

    Returns:
        `(C, X, Y, Z)` in the file's own dtype, or float32 where the header scales it.

    Raises:
        InputError: for a damaged file, another shape (trailing axes of length 1 are dropped), a dtype that is not a
            real number, more than `MAX_VOXELS` voxels or more than the file can hold, an affine that is singular or not
            finite.
    """
    try:
        with quiet_nibabel(), warnings.catch_warnings(), np.errstate(all="ignore"), _open(path) as file:
            warnings.simplefilter("ignore")  # everything that matters is checked below
            start = file.read(540)
            header = _header(path, start)
            shape = _checked_shape(path, header, options)
            ratio = MAX_DEFLATE_RATIO if path.name.lower().endswith(".gz") else 1
            check_voxels(path, math.prod(shape), header.get_data_dtype().itemsize, ratio=ratio)
            geometry = _geometry(path, header, start, options)
            # The header and the voxels alone: nibabel would parse what extensions hold, even DICOM.
            voxels = ArrayProxy(file, header, mmap=False)
            scaled = voxels.slope != 1 or voxels.inter != 0
            data = np.asanyarray(voxels, dtype=np.float32) if scaled else np.asanyarray(voxels)
            for _ in range(MAX_TRAILING_MIB):  # to the end, where gzip compares its checksum
                if not file.read(2**20):
                    break
    except InputError:
        raise
    except NIBABEL_ERRORS as error:
        raise refusal(path, "NIfTI", error) from None
    if data.dtype.kind == "f" and data.dtype != np.float32:
        with np.errstate(over="ignore"):
            data = data.astype(np.float32)
    data = np.asarray(data, dtype=data.dtype.newbyteorder("=")).reshape(shape)
    return Volume(
        np.moveaxis(data, 3, 0),
        geometry.affine,
        header=header,
        decisions=(*geometry.decisions, *channel_decision(data.shape[3])),
        is_oriented=geometry.is_oriented,
    )


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """A header: the shape `(C, X, Y, Z)`, the dtype of the stored voxels, the affine,
    and True where scaling makes float32 of them.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype
    affine: np.ndarray
    is_scaled: bool


def read_nifti_header(path: Path, options: ReadOptions = INTENSITIES) -> NiftiHeader:
    """The header alone, after the checks of `read_nifti`, but for the number of voxels;
    of a gzipped file its first bytes are inflated.
    """
    try:
        with quiet_nibabel(), warnings.catch_warnings(), np.errstate(all="ignore"), _open(path) as file:
            warnings.simplefilter("ignore")
            start = file.read(540)
            header = _header(path, start)
            x, y, z, c = _checked_shape(path, header, options)
            affine = _geometry(path, header, start, options).affine
            slope, intercept = header.get_slope_inter()
    except InputError:
        raise
    except NIBABEL_ERRORS as error:
        raise refusal(path, "NIfTI", error) from None
    is_scaled = (slope if slope is not None else 1) != 1 or (intercept or 0) != 0
    return NiftiHeader((c, x, y, z), header.get_data_dtype(), affine, is_scaled)


def _geometry(path: Path, header: nib.Nifti1Header, start: bytes, options: ReadOptions) -> Geometry:
    try:
        geometry = read_geometry(header, start[: header.template_dtype.itemsize], options.choices)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    checked_affine(path, geometry.affine)
    return geometry


def channel_decision(channels: int) -> tuple[Decision, ...]:
    """The decision about a file with a fourth axis of this length."""
    if channels == 1:
        return ()
    return (Decision("fourth-axis", f"the fourth axis holds {channels} channels, not moments in time"),)


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.name.lower().endswith(".gz") else path.open("rb")


def _is_version_2(start: bytes) -> bool:
    return start[:4] in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))


def _header(path: Path, start: bytes) -> nib.Nifti1Header:
    size = 540 if _is_version_2(start) else 348
    if len(start) < size:
        raise refusal(path, "NIfTI", f"its header has {size} bytes, got {len(start)}; {AGAIN}")
    return nib.Nifti2Header(start) if size == 540 else nib.Nifti1Header(start[:348])


def _checked_shape(path: Path, header: nib.Nifti1Header, options: ReadOptions) -> tuple[int, int, int, int]:
    """The shape `(X, Y, Z, C)`, after the checks of the header."""
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) == 5 and shape[3] == 1:
        shape = (*shape[:3], shape[4])  # NIfTI stores vectors along axis 5
    if len(shape) < 2 or min(shape) < 1 or any(n != 1 for n in shape[3 if options.labels else 4 :]):
        if options.labels:
            raise InputError(f"{path}: must be a 3D mask, got the shape {shape}: save it as one label map")
        raise InputError(f"{path}: must be a 3D image (or 4D, with channels), got the shape {shape}")
    x, y, z, c = (*shape, 1, 1)[:4]
    dtype, offset = header.get_data_dtype(), float(header["vox_offset"])
    check_real_numbers(path, dtype)
    if not 0 <= offset <= MAX_VOXEL_OFFSET:
        raise InputError(
            f"{path}: voxels must start within the first {MAX_VOXEL_OFFSET:,} bytes, the header says {offset:g}"
        )
    return x, y, z, c
