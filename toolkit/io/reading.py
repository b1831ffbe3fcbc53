"""Options, limits and errors that the readers of all formats share."""

import os
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from nibabel.imageglobals import logger as nibabel_logger

from attunet.decisions import Choices
from attunet.errors import InputError, TooLarge
from attunet.io.refusal import AGAIN

MAX_VOXELS = 2**30
MAX_DEFLATE_RATIO = 1040  # deflate cannot shrink further than 1032 to 1
SPACING_RANGE_MM = (1e-6, 1e6)
MAX_OFFSET_MM = 1e9  # of the first voxel; headers of label maps hold it as float32

# The exceptions of nibabel, pydicom, Pillow, gzip and NumPy on files that are damaged or made to harm.
FILE_ERRORS = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(AssertionError, RuntimeError, struct.error, zlib.error),
)


@dataclass(frozen=True)
class ReadOptions:
    """Options of a reader. labels: the file is a mask, its samples are label values and no intensities."""

    labels: bool = False
    choices: Choices = field(default_factory=dict)


class Shared:
    """A switch of the whole process as a context of many threads: the first that enters throws it, the last that leaves
    puts it back. Of switches of their own, the first to leave would put back that of the others.
    """

    def __init__(self, switch: Callable[[], AbstractContextManager[object]]) -> None:
        self._switch, self._lock, self._inside, self._thrown = switch, threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._thrown.enter_context(self._switch())
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._thrown.close()


@contextmanager
def _quiet() -> Iterator[None]:
    before = nibabel_logger.disabled
    with warnings.catch_warnings(action="ignore"):
        nibabel_logger.disabled = True
        try:
            yield
        finally:
            nibabel_logger.disabled = before


QUIET = Shared(_quiet)  # drops libraries' warnings, which may quote a header, and with it a patient; errors are raised
_STDERR = threading.RLock()


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drops what C and C++ libraries write past Python's stderr; an error behind it is raised as an exception too."""
    with _STDERR:
        sys.stderr.flush()
        try:
            kept = os.dup(2)
        except OSError:  # a process without stderr
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


def checked_affine(path: Path | str, affine: np.ndarray) -> np.ndarray:
    """The affine `(4, 4)` itself. Raises InputError unless it is finite, invertible and of possible sizes."""
    with np.errstate(over="ignore", invalid="ignore"):
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = SPACING_RANGE_MM
    if not np.isfinite(affine).all() or spacing.min() < low or spacing.max() > high:
        raise InputError(
            f"{path}: the affine must be finite with voxels of {low:g} to {high:g} mm, got {spacing.tolist()}"
        )
    if np.abs(affine[:3, 3]).max() > MAX_OFFSET_MM:
        place = affine[:3, 3].tolist()
        raise InputError(f"{path}: the first voxel must lie within {MAX_OFFSET_MM:g} mm of the origin, got {place}")
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-4:
        raise InputError(f"{path}: the affine must be invertible, got {affine[:3, :3].tolist()}")
    return affine


def check_voxels(path: Path, voxels: int, item_bytes: int, *, ratio: int = 1) -> None:
    """Raises TooLarge for more voxels (of all channels) than are supported, InputError for more than a file can hold.

    `ratio` is the largest factor by which the format's compression can shrink voxels of `item_bytes` each.
    """
    if voxels > MAX_VOXELS:
        raise TooLarge(f"{path}: at most {MAX_VOXELS:,} voxels are supported, the header says {voxels:,}")
    needed, present = voxels * item_bytes, path.stat().st_size
    if needed > present * ratio:
        raise InputError(f"{path}: is cut short: the header says {needed:,} bytes, the file has {present:,}; {AGAIN}")


def native(array: np.ndarray) -> np.ndarray:
    """The array in this machine's byte order, and floating point as float32."""
    with np.errstate(over="ignore"):
        return np.asarray(array, dtype=np.float32 if array.dtype.kind == "f" else array.dtype.newbyteorder("="))


def check_real_numbers(path: Path, dtype: np.dtype) -> None:
    """Raises InputError for colours and complex numbers, with what to save instead."""
    if dtype.names:
        raise InputError(
            f"{path}: voxels must be real numbers, got colours ({', '.join(dtype.names)}): save one grey channel, or a "
            "channel for each colour"
        )
    if dtype.kind == "c":
        raise InputError(f"{path}: voxels must be real numbers, got complex ones: save their magnitude")
