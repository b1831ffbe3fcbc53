"""gzip files in a time that follows from their size: Python's own module reads headers byte by byte, and members that
hold nothing one after the other, so that some megabytes of them take it minutes.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK_BYTES = 2**14
GZIP = 31  # for zlib: a gzip header, and a checksum that is compared
MAX_TRAILING_BYTES = 2**26  # behind what is wanted, that are inflated for the checksum at the end
MARK = b"\x1f\x8b"
MIN_MEMBERS, MEMBER_BYTES = 1024, 64  # members that a file may have whatever its size, and bytes for each further one


def open_gzip(path: Path) -> BinaryIO:
    """The inflated contents, from the start on or by seeking. Reading raises OSError, EOFError or zlib.error for a
    file that is damaged, cut short, or has more members than its size allows.
    """
    return cast(BinaryIO, io.BufferedReader(_GzipFile(path), 2**17))


def is_gzipped(path: Path) -> bool:
    """True for a name of a gzip file."""
    return path.name.lower().endswith((".gz", ".mgz"))


def open_inflated(path: Path) -> BinaryIO:
    """The contents of a file, inflated where its name is of a gzip file."""
    return open_gzip(path) if is_gzipped(path) else path.open("rb")


def read_to_end(file: BinaryIO) -> None:
    """Read what follows the wanted part of a file: a gzip's checksum is at the end, and compared there. Raises the
    errors of `rest_of`.
    """
    for _ in rest_of(file):
        pass


def rest_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield what follows the wanted part of a file. Raises the errors of `open_gzip`, and EOFError for more than
    `MAX_TRAILING_BYTES`: then the header that says what is wanted is damaged.
    """
    for _ in range(0, MAX_TRAILING_BYTES + 1, 2**20):
        if not (chunk := file.read(2**20)):
            return
        yield chunk
    raise EOFError(f"it goes on for more than {MAX_TRAILING_BYTES:,} bytes behind what its header says")


class _GzipFile(io.RawIOBase):
    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._max_members = MIN_MEMBERS + path.stat().st_size // MEMBER_BYTES
        self._pending = b""  # bytes that were read and not inflated
        self._position = self._members = 0
        self._member: zlib._Decompress | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer).cast("B")
        while len(view) and (self._member is not None or self._next_member()):
            assert self._member is not None
            chunk = self._pending or self._file.read(CHUNK_BYTES)
            data = self._member.decompress(chunk, len(view))
            if self._member.eof:
                self._pending, self._member = self._member.unused_data, None
            else:
                self._pending = self._member.unconsumed_tail
                if not chunk and not data:
                    raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            if data:
                view[: len(data)] = data
                self._position += len(data)
                return len(data)
        return 0

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence != io.SEEK_SET:
            raise io.UnsupportedOperation("the end of a gzip file is known where it has been read")
        if offset < self._position:
            self._file.seek(0)
            self._pending, self._member = b"", None
            self._position = self._members = 0
        while self._position < offset and self.read(min(offset - self._position, 2**20)):
            pass
        return self._position

    def tell(self) -> int:
        return self._position

    def _next_member(self) -> bool:
        """Begins a member; False at the file's end, before which zeros may lie."""
        while True:
            if self._members:
                self._pending = self._pending.lstrip(b"\0")
            if len(self._pending) >= len(MARK) or not (more := self._file.read(CHUNK_BYTES)):
                break
            self._pending += more
        if not self._pending:
            return False
        if not self._pending.startswith(MARK):
            raise gzip.BadGzipFile(f"Not a gzipped file ({self._pending[:2]!r})")
        self._members += 1
        if self._members > self._max_members:
            raise gzip.BadGzipFile(f"more than {self._max_members:,} members in it")
        self._member = zlib.decompressobj(GZIP)
        return True
