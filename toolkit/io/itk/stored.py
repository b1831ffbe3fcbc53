"""An image as the header of NRRD or MetaImage describes it, and its voxels.

The headers are read here, and the voxels with NumPy: ITK follows a header to any file of the machine, reads a stream
that breaks off without an error, and leaves what is missing uninitialised.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from attunet.errors import InputError
from attunet.io.gzip_file import MAX_TRAILING_BYTES
from attunet.io.reading import MAX_DEFLATE_RATIO, check_voxels
from attunet.io.refusal import AGAIN

MAX_HEADER_BYTES = 2**20
CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class StoredImage:
    """An image in a file."""

    path: Path  # the header's file
    holder: Path  # the file with the voxels, which may be the same
    offset: int | None  # first byte of the voxels; None if they are the end of the file
    is_packed: bool  # True for a stream of zlib or gzip
    dtype: np.dtype  # of a voxel, with its byte order
    sizes: tuple[int, ...]  # of all axes, the one whose voxels follow each other first
    channel_axis: int | None  # number of the axis of channels among them; None for an image of one channel
    directions: np.ndarray  # for each other axis the step between its voxels, `(axes, 3)` in mm, in LPS
    origin: np.ndarray  # place of the first voxel, in mm, in LPS
    is_oriented: bool  # True if the header states the orientation
    header_end: int  # where the header ends in the file of the voxels; 0 if it lies in another

    @property
    def num_voxels(self) -> int:
        """Of all channels."""
        return int(np.prod(self.sizes, dtype=object))

    def read(self) -> np.ndarray:
        """The voxels, with the axes of `sizes`. Raises TooLarge for more voxels than are supported, and InputError for
        more voxels than the file can hold, and for fewer or damaged ones than the header says.
        """
        size = self.num_voxels * self.dtype.itemsize
        check_voxels(self.holder, self.num_voxels, self.dtype.itemsize, ratio=MAX_DEFLATE_RATIO)
        return (self._inflated if self.is_packed else self._raw)(size).reshape(self.sizes, order="F")

    @property
    def _subject(self) -> str:
        return str(self.path) if self.holder == self.path else f"{self.holder} (the voxels of {self.path.name})"

    def _raw(self, size: int) -> np.ndarray:
        present = self.holder.stat().st_size
        start = present - size if self.offset is None else self.offset
        if start < self.header_end or present - start < size:
            there = max(0, present - max(self.header_end, start))
            said = f"the header says {size:,} bytes of voxels, there are {there:,}"
            raise InputError(f"{self._subject}: is cut short: {said}; {AGAIN}")
        return np.fromfile(self.holder, self.dtype, self.num_voxels, offset=start)

    def _inflated(self, size: int) -> np.ndarray:
        stream, data, total = zlib.decompressobj(wbits=47), bytearray(), 0  # 47: zlib's or gzip's header
        try:
            with self.holder.open("rb") as file:
                file.seek(self.offset or 0)
                while not stream.eof and total <= size + MAX_TRAILING_BYTES:  # its checksum is compared at the end
                    chunk = stream.unconsumed_tail or file.read(CHUNK_BYTES)
                    part = stream.decompress(chunk, CHUNK_BYTES)
                    if not chunk and not part:
                        break
                    data += part[: size - len(data)]
                    total += len(part)
        except zlib.error:
            raise InputError(f"{self._subject}: its compressed voxels are damaged: {AGAIN}") from None
        if len(data) < size or not stream.eof:
            reason = "break off" if total <= size + MAX_TRAILING_BYTES else "go on far beyond those of the header"
            raise InputError(f"{self._subject}: is damaged: its compressed voxels {reason}; {AGAIN}")
        return np.frombuffer(data, self.dtype)


def quoted(value: str) -> str:
    """A value of a header for an error: its start, without the next line where the end between them is damaged, since
    that may have a patient's name.
    """
    start = re.match(r"[-+\w.,()/% ]{0,60}", value)
    assert start is not None
    return repr(start[0])


def file_beside(path: Path, name: str) -> Path:
    """The file with the voxels that a header names. Raises InputError unless it lies beside the header."""
    beside = path.parent / name
    is_list = name.upper().startswith("LIST") or "%" in name  # of several files, to other readers
    if not name or Path(name).name != name or is_list or beside.is_symlink():
        raise InputError(f"{path}: its voxels must lie in one file beside it, got {quoted(name)}")
    if not beside.is_file():
        raise InputError(f"{path}: its voxels lie in {quoted(name)}, which is not there: put it beside the header")
    return beside


def header_lines(path: Path) -> Iterator[tuple[str, int]]:
    """Each line of a header, with the place after it; only the first `MAX_HEADER_BYTES` are looked at."""
    with path.open("rb") as file:
        start = BytesIO(file.read(MAX_HEADER_BYTES))
    for line in start:
        yield line.decode("utf-8", "replace"), start.tell()


def numbers(path: Path, key: str, value: str, count: int) -> np.ndarray:
    """The `count` numbers of a line of a header."""
    try:
        values = np.array([float(word) for word in value.split()])
    except ValueError:
        values = np.zeros(0)
    if len(values) != count:
        raise InputError(f"{path}: its header's {key} must be {count} numbers, got {quoted(value)}")
    return values


def whole_numbers(path: Path, key: str, value: str, low: int) -> tuple[int, ...]:
    """The whole numbers from `low` on of a line of a header."""
    words = value.split()
    if not words or not all(word.lstrip("+-").isdecimal() and len(word) < 16 and int(word) >= low for word in words):
        raise InputError(f"{path}: its header's {key} must be whole numbers from {low} on, got {quoted(value)}")
    return tuple(map(int, words))
