"""NIfTI-1 and -2, plain or gzipped: the header is judged before the voxels are read."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel.analyze import AnalyzeHeader
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from nibabel.volumeutils import apply_read_scaling
from nibabel.wrapstruct import WrapStructError

from attunet.decisions import Decision
from attunet.errors import InputError
from attunet.io.gzip_file import is_gzipped, open_inflated, read_to_end
from attunet.io.nifti_header import read_geometry
from attunet.io.reading import (
    FILE_ERRORS,
    MAX_DEFLATE_RATIO,
    QUIET,
    ReadOptions,
    check_real_numbers,
    check_voxels,
    native,
)
from attunet.io.refusal import AGAIN, refusal, refused_as
from attunet.volumes.volume import Volume

NIFTI_SUFFIXES = (".nii.gz", ".nii")  # the first is the one for new files
MAX_VOXEL_OFFSET = 2**24  # bytes of header extensions before the voxels
VOXEL_BLOCK = 2**20  # voxels that are scaled at once
NIBABEL_ERRORS = (*FILE_ERRORS, ImageFileError, HeaderDataError, HeaderTypeError, WrapStructError)
VERSION_2 = ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))  # a header begins with its size


@contextmanager
def nibabel_reads(path: Path, form: str) -> Iterator[None]:
    """nibabel at work without its log lines and warnings; its errors become a refusal. All that matters is checked."""
    with (
        refused_as(path, form, NIBABEL_ERRORS),
        QUIET,
        np.errstate(all="ignore"),
    ):
        yield


def read_nifti(path: Path, options: ReadOptions) -> Volume:
    """Reads a NIfTI file. An image's axis 4 (or 5, as vectors are stored) holds channels; a mask has one.

    Returns:
        `(C, X, Y, Z)` in the file's own dtype, or float32 where the header scales it.

    Raises InputError for a damaged file, another shape (trailing axes of length 1 are dropped), a dtype that is not a
    real number, more than `MAX_VOXELS` voxels or more than the file can hold, an affine that is singular or not finite.
    """
    with nibabel_reads(path, "NIfTI"), open_inflated(path) as file:
        start = file.read(540)
        header = _header(path, start)
        shape = _checked_shape(path, header, labels=options.labels)
        ratio = MAX_DEFLATE_RATIO if is_gzipped(path) else 1
        check_voxels(path, math.prod(shape), header.get_data_dtype().itemsize, ratio=ratio)
        geometry = read_geometry(path, header, start, options.choices)
        # The header and the voxels alone: nibabel would parse what extensions hold, even DICOM.
        data = read_voxels(file, header)
    return Volume(
        np.moveaxis(native(data).reshape(shape), 3, 0),
        geometry.affine,
        header=header,
        decisions=(*geometry.decisions, *channel_decision(shape[3])),
        is_oriented=geometry.is_oriented,
    )


def read_voxels(file: BinaryIO, header: AnalyzeHeader | MGHHeader) -> np.ndarray:
    """Read the voxels of a file, of the header's shape and in its type, or in float32 where it scales them.

    nibabel's own reading fills memory with zeros for all that the header claims, and scales in float64. Raises EOFError
    for fewer voxels than the header says or far more, and OSError or zlib.error for a gzip that is damaged, in the
    voxels or behind them.
    """
    shape = header.get_data_shape()
    stored = np.empty(int(np.prod(shape, dtype=object)), header.get_data_dtype())
    file.seek(header.get_data_offset())
    if (present := cast(BufferedReader, file).readinto(stored.view(np.uint8).data)) < stored.nbytes:
        raise EOFError(f"Expected {stored.nbytes} bytes, got {present} bytes")
    read_to_end(file)
    stated = header.get_slope_inter()
    slope, intercept = (1.0 if stated[0] is None else stated[0]), (0.0 if stated[1] is None else stated[1])
    if (slope, intercept) != (1, 0):
        scaled = np.empty(stored.shape, np.float32)
        for start in range(0, stored.size, VOXEL_BLOCK):
            part = slice(start, start + VOXEL_BLOCK)
            scaled[part] = apply_read_scaling(stored[part], np.float64(slope), np.float64(intercept))
        stored = scaled
    return stored.reshape(shape, order="F")


def nifti_shape(path: Path) -> tuple[int, ...]:
    """The shape in a NIfTI file's header; empty for another format or a damaged header, which the reader refuses."""
    if path.name.lower().endswith(NIFTI_SUFFIXES):
        with suppress(InputError), nibabel_reads(path, "NIfTI"), open_inflated(path) as file:
            return tuple(int(n) for n in _header(path, file.read(540)).get_data_shape())
    return ()


def nifti_volume(path: Path) -> Volume:
    """A volume with the shape, type and affine of a NIfTI header. All voxels are one zero, which takes no memory.
    Raises InputError as `read_nifti` does for the header; it is TooLarge for more than `MAX_VOXELS` voxels. The file's
    own size is not looked at, and little of a gzip is inflated.
    """
    with nibabel_reads(path, "NIfTI"), open_inflated(path) as file:
        start = file.read(540)
        header = _header(path, start)
        x, y, z, c = _checked_shape(path, header, labels=False)
        affine = read_geometry(path, header, start, {}).affine
        slope, intercept = header.get_slope_inter()
    check_voxels(path, x * y * z * c, 0)
    is_scaled = slope not in (None, 1) or intercept not in (None, 0)
    dtype = np.dtype(np.float32) if is_scaled else header.get_data_dtype().newbyteorder("=")
    return Volume(np.broadcast_to(np.zeros((), dtype), (c, x, y, z)), affine)


def channel_decision(channels: int) -> tuple[Decision, ...]:
    """The decision about a file with a fourth axis of this length."""
    if channels == 1:
        return ()
    return (Decision("fourth-axis", f"the fourth axis holds {channels} channels, not moments in time"),)


def _header(path: Path, start: bytes) -> nib.Nifti1Header:
    size = 540 if start[:4] in VERSION_2 else 348
    if len(start) < size:
        raise refusal(path, "NIfTI", f"its header has {size} bytes, got {len(start)}; {AGAIN}")
    return nib.Nifti2Header(start) if size == 540 else nib.Nifti1Header(start[:348])


def _checked_shape(path: Path, header: nib.Nifti1Header, *, labels: bool) -> tuple[int, int, int, int]:
    """The shape `(X, Y, Z, C)`, after the checks of the header."""
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) == 5 and shape[3] == 1:
        shape = (*shape[:3], shape[4])  # NIfTI stores vectors along axis 5
    if len(shape) < 2 or min(shape) < 1 or any(n != 1 for n in shape[3 if labels else 4 :]):
        if labels:
            raise InputError(f"{path}: must be a 3D mask, got the shape {shape}: save it as one label map")
        raise InputError(f"{path}: must be a 3D image (or 4D, with channels), got the shape {shape}")
    x, y, z, c = (*shape, 1, 1)[:4]
    dtype, offset = header.get_data_dtype(), float(header["vox_offset"])
    check_real_numbers(path, dtype)
    if not header.single_vox_offset <= offset <= MAX_VOXEL_OFFSET:
        rule = f"voxels must start behind the header and within the first {MAX_VOXEL_OFFSET:,} bytes"
        raise InputError(f"{path}: {rule}, the header says {offset:g}")
    return x, y, z, c
