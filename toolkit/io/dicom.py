"""One DICOM series of uncompressed slices, through pydicom (the extra `dicom`). Nothing of a header but geometry is kept."""

import re
import struct
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from attunet.errors import InputError
from attunet.io.nifti import MAX_VOXELS, checked_affine
from attunet.volumes.volume import Volume

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
MAX_FILE_BYTES = 2**30
MAX_SLICES = 16384
MAX_SIDE = 2**15
GAP_TOLERANCE = 0.1  # of the slice spacing
DIRECTION_TOLERANCE = 1e-3
LONG_FORM = (b"OB", b"OW", b"OF", b"OD", b"OL", b"SQ", b"UN", b"UT", b"UC", b"UR")

Result = TypeVar("Result")

# What pydicom raises on files that are damaged; headers are parsed when an element is asked for.
FILE_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    RecursionError,
    EOFError,
    AssertionError,
    struct.error,
)


@dataclass(frozen=True)
class SliceNames:
    """The files of a series in the order of its slices, and their folder; a volume's `header`, so that masks in files of their own find
    their slice and a segmentation its series."""

    folder: Path
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Slice:
    name: str
    pixels: np.ndarray  # (rows, columns)
    position: np.ndarray
    directions: np.ndarray  # (2, 3): along a row, down a column
    pixel_mm: tuple[float, float]  # between rows, between columns
    thickness: float
    series: str


def is_dicom(path: Path) -> bool:
    """Whether a file has the mark of the DICOM file format."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_series(path: Path) -> Volume:
    """A folder's one series, or a single file, as `(1, X, Y, Z)`: X along a row's columns, Y down the rows, Z along the normal.

    Files without DICOM's mark are left aside, as are DICOMDIR files. Raises InputError where slices differ in size, spacing, direction or
    series, lie in the same place or unevenly, or where a file is damaged, compressed, in colour or has several frames.
    """
    files = _files(path)
    if not files:
        raise InputError(f"{path}: the folder has no DICOM files")
    if len(files) > MAX_SLICES:
        raise InputError(f"{path}: at most {MAX_SLICES} slices are supported, got {len(files)}")
    slices, values = [], 0
    for file in files:
        slices.append(_read_slice(file))
        values += slices[-1].pixels.size
        if values > MAX_VOXELS:
            raise InputError(f"{path}: at most {MAX_VOXELS:,} voxels are supported")
    slices, affine = _in_order(path, slices)
    data = np.stack([s.pixels.T for s in slices], axis=-1)[None]
    return Volume(
        data, checked_affine(path, affine), header=SliceNames(path.parent if path.is_file() else path, tuple(s.name for s in slices))
    )


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if not is_dicom(path):
            raise InputError(f"{path}: is no DICOM file (bytes 129 to 132 must be DICM)")
        return [path]
    regular = (p for p in path.iterdir() if p.is_file() and not p.is_symlink() and not p.name.startswith("."))
    return sorted(p for p in regular if p.name.upper() != "DICOMDIR" and is_dicom(p))


def _read_slice(path: Path) -> _Slice:
    return _guarded(path, lambda dataset, order: _slice(path, dataset, order))


def read_header(path: Path) -> Any:
    """A slice's header as pydicom has it, without its pixels, after the same checks as in `read_series`."""

    def without_pixels(dataset: Any, order: str) -> Any:
        del dataset.PixelData
        return dataset

    return _guarded(path, without_pixels)


def _guarded(path: Path, use: Callable[[Any, str], Result]) -> Result:
    """What `use` makes of a file's data set and byte order ("<" or ">"); InputError for a file that is damaged, compressed or too large."""
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise InputError(f"{path}: a DICOM file of at most {MAX_FILE_BYTES:,} bytes is supported, got {size:,}")
    try:
        import pydicom
    except ImportError:
        raise InputError(f"{path}: DICOM needs pydicom, which is not installed: pip install 'attunet[dicom]'") from None
    try:
        raw = path.read_bytes()  # so that no element can ask for more than there is
        syntax = _transfer_syntax(raw)
        if syntax not in (IMPLICIT, EXPLICIT, BIG_ENDIAN):
            raise InputError(f"{path}: must be uncompressed, got the transfer syntax {syntax or 'of a damaged header'}")
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")  # warnings quote the header, and with it a patient
            return use(pydicom.dcmread(BytesIO(raw)), ">" if syntax == BIG_ENDIAN else "<")
    except InputError:
        raise
    except (*FILE_ERRORS, pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException) as error:
        # Only the kind of error: its text may quote the header, and with it a patient.
        raise InputError(f"{path}: cannot be read as DICOM: {type(error).__name__}") from None


def _transfer_syntax(raw: bytes) -> str:
    """A UID or nothing, from the meta group alone: pydicom would inflate a deflated file without a bound."""
    at, found = 132, b""
    while at + 8 <= len(raw) and raw[at : at + 2] == b"\x02\x00":
        element, kind, length = raw[at + 2 : at + 4], raw[at + 4 : at + 6], int.from_bytes(raw[at + 6 : at + 8], "little")
        at += 8
        if kind in LONG_FORM:
            length = int.from_bytes(raw[at : at + 4], "little")
            at += 4
        if element == b"\x10\x00":
            found = raw[at : at + length].rstrip(b"\0 ")
        at += length
    return found.decode() if re.fullmatch(rb"[0-9.]{1,64}", found) else ""


def _slice(path: Path, dataset: Any, order: str) -> _Slice:
    rows, columns, bits = int(dataset.Rows), int(dataset.Columns), int(dataset.BitsAllocated)
    frames, samples = int(dataset.get("NumberOfFrames") or 1), int(dataset.get("SamplesPerPixel", 1))
    if not (1 <= rows <= MAX_SIDE and 1 <= columns <= MAX_SIDE) or frames != 1 or samples != 1 or bits not in (8, 16, 32):
        raise InputError(
            f"{path}: must be one grey frame of 8, 16 or 32 bits and at most {MAX_SIDE} pixels a side, "
            f"got {frames} × {rows} × {columns} with {samples} samples of {bits} bits"
        )
    if dataset.get("PhotometricInterpretation", "MONOCHROME2") not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(f"{path}: must be grey (MONOCHROME1 or MONOCHROME2)")
    kind = np.dtype(f"{order}{'i' if dataset.get('PixelRepresentation', 0) else 'u'}{bits // 8}")
    content, needed = dataset.PixelData, rows * columns * kind.itemsize
    if len(content) < needed:
        raise InputError(f"{path}: is cut short: {rows} × {columns} pixels need {needed:,} bytes, the file has {len(content):,}")
    pixels = np.frombuffer(content[:needed], kind).reshape(rows, columns)
    pixels = pixels.astype(kind.newbyteorder("="))
    slope, intercept = float(dataset.get("RescaleSlope") or 1), float(dataset.get("RescaleIntercept") or 0)
    if (slope, intercept) != (1, 0):
        pixels = (pixels * slope + intercept).astype(np.float32)
    vertical, horizontal = _numbers(dataset.PixelSpacing, 2)
    return _Slice(
        name=path.name,
        pixels=pixels,
        position=np.array(_numbers(dataset.ImagePositionPatient, 3)),
        directions=np.array(_numbers(dataset.ImageOrientationPatient, 6)).reshape(2, 3),
        pixel_mm=(vertical, horizontal),
        thickness=float(dataset.get("SpacingBetweenSlices") or dataset.get("SliceThickness") or 1),
        series=str(dataset.get("SeriesInstanceUID", "")),
    )


def _numbers(values: Iterable[Any], count: int) -> list[float]:
    numbers = [float(v) for v in values]
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError("geometry")
    return numbers


def _in_order(path: Path, slices: list[_Slice]) -> tuple[list[_Slice], np.ndarray]:
    """The slices along their normal, and the affine in RAS+ of `(column, row, slice)`."""
    first = slices[0]
    for other in slices[1:]:
        if other.series != first.series:
            raise InputError(f"{path}: the folder must hold one series, {other.name} is of another than {first.name}")
        same_grid = other.pixels.shape == first.pixels.shape and np.allclose(other.pixel_mm, first.pixel_mm, rtol=1e-4)
        if not same_grid or np.abs(other.directions - first.directions).max() > DIRECTION_TOLERANCE:
            raise InputError(f"{path}: slices must agree in size, spacing and direction, {other.name} differs from {first.name}")
    normal = np.cross(*first.directions)
    slices = sorted(slices, key=lambda s: float(s.position @ normal))
    step = normal * first.thickness
    if len(slices) > 1:
        heights = np.array([s.position @ normal for s in slices])
        gaps, typical = np.diff(heights), float(np.median(np.diff(heights)))
        if gaps.min() <= 1e-3:
            at = int(gaps.argmin())
            raise InputError(f"{path}: two slices lie in the same place, {slices[at].name} and {slices[at + 1].name}")
        if np.abs(gaps - typical).max() > GAP_TOLERANCE * typical:
            at = int(np.abs(gaps - typical).argmax())
            raise InputError(
                f"{path}: slices must be evenly spaced, {typical:g} mm apart, but {slices[at].name} and {slices[at + 1].name} "
                f"are {gaps[at]:g} mm apart: is one missing?"
            )
        step = (slices[-1].position - slices[0].position) / (len(slices) - 1)
    affine = np.eye(4)
    affine[:3, 0] = first.directions[0] * first.pixel_mm[1]
    affine[:3, 1] = first.directions[1] * first.pixel_mm[0]
    affine[:3, 2] = step
    affine[:3, 3] = slices[0].position
    affine[:2] *= -1  # DICOM's left and posterior to right and anterior
    return slices, affine
