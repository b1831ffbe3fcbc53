"""Unpacking zip and tar archives without trusting them."""

import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from attunet.errors import InputError, TooLarge, one_line
from attunet.io.gzip_file import open_gzip, rest_of
from attunet.io.reading import FILE_ERRORS
from attunet.io.refusal import AGAIN
from attunet.system.atomic_files import write_error
from attunet.system.deadline import check_end

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_MEMBERS = 1_000_000
FREE_MEMBERS = 10_000  # that any archive may have
BYTES_PER_MEMBER = 512  # packed, of each further one: unpacking and sorting files takes time even where they are empty
MAX_MEMBER_BYTES = 2**33
MAX_TOTAL_BYTES = 2**39
MAX_RATIO = 100  # unpacked over packed, of the whole archive; single masks may shrink further
ALWAYS_ALLOWED_BYTES = 2**30  # whatever the ratio
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others take memory that no limit here bounds
MAX_HEADER_BYTES = 2**20  # of a tar, at once
FREE_HEADER_BYTES = 2**23  # of a tar, together, and one more for each byte of it: what they hold takes time
MEMBER_HEADER_BYTES = 2048  # and for each member: a header of its own for a long name or the exact time is usual
DIRECTORY_ENTRY = b"PK\x01\x02"  # the beginning of each entry of a zip's directory
MAX_GLOBAL_RECORDS = 64  # of a tar, which each of its members copies
DIGITS = re.compile(rb"[0-9]{100}")  # in a row, in which tarfile looks for a number from each of them on

ARCHIVE_ERRORS = (*FILE_ERRORS, zipfile.BadZipFile, tarfile.TarError)


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    is_folder: bool
    is_regular: bool
    open: Callable[[], IO[bytes] | None]


class _Headers:
    """The file of a tar, of which headers alone are read until its members are listed: tarfile reads one at once,
    whatever length it claims, and takes time for what it holds.
    """

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self._file = file
        self._left = max_bytes
        self._last = b""
        self.are_listed = False
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if self.are_listed:
            return self._file.read(size)
        self._left -= size
        if size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        if self._left < 0:
            raise tarfile.ReadError("its headers are too large for its size: pack it without extended attributes")
        self._last = header = self._file.read(size)
        if DIGITS.search(header):
            raise tarfile.ReadError("a header has a hundred digits in a row")
        return header

    def end_member(self) -> None:
        self._left += MEMBER_HEADER_BYTES

    def end(self) -> None:
        """Compare the end with that of a tar, zeros alone: tarfile takes a damaged header for it, or a missing one."""
        end = chain([self._last], rest_of(self._file))
        if len(self._last) < tarfile.BLOCKSIZE or any(part.strip(b"\0") for part in end):
            raise tarfile.ReadError("a header of its members is damaged, or it is cut short")
        self.are_listed = True


class _GlobalRecords(dict[str, str]):
    """The records of a tar's global headers."""

    def __setitem__(self, key: str, value: str) -> None:
        super().__setitem__(key, value)
        if len(self) > MAX_GLOBAL_RECORDS:
            raise tarfile.ReadError(f"more than {MAX_GLOBAL_RECORDS} global records")


class _Directory:
    """The file of a zip, of which zipfile reads the directory at once, and then makes an object of each entry."""

    def __init__(self, file: BinaryIO, name: str, max_members: int) -> None:
        self._file, self.name, self._max_members = file, name, max_members
        self._number = 0  # of entries in what was read last, which is the directory in the end
        self.is_listed = False
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if self.is_listed:
            return self._file.read(size)
        limit = self._max_members * MEMBER_HEADER_BYTES
        if size > limit:
            raise TooLarge(f"{self.name}: its directory must have at most {limit:,} bytes, got {size:,}")
        data = self._file.read(size)
        self._number = data.count(DIRECTORY_ENTRY)
        if self._number > self._max_members:
            raise TooLarge(f"{self.name}: must have at most {self._max_members:,} members, got {self._number:,}")
        return data

    def end(self, number: int) -> None:
        """Compare the entries with those that zipfile found: one that claims to be longer hides those behind it."""
        if number != self._number:
            raise zipfile.BadZipFile(f"its directory is damaged: {number:,} of {self._number:,} entries are found")
        self.is_listed = True


@contextmanager
def open_zip(archive: Path, max_members: int) -> Iterator[zipfile.ZipFile]:
    """Open a zip. Raises TooLarge, before its directory is parsed, for more members, or for larger entries of them."""
    with archive.open("rb") as file:
        directory = _Directory(file, str(archive), max_members)
        with zipfile.ZipFile(cast(IO[bytes], directory)) as opened:
            directory.end(len(opened.infolist()))
            yield opened


def extract(archive: Path, into: Path, wanted: Callable[[str], bool]) -> int:
    """Extracts the members whose name is `wanted` from one of `ARCHIVE_SUFFIXES` below a folder; returns their number.

    Raises InputError before a byte is written, for links and other special members, paths that lead out, names that
    occur twice, encryption, and sizes, counts or a ratio beyond the limits above; and for damaged data. Raises
    DiskError where the disk is full.
    """
    with _opened(archive) as members:
        chosen = [(name, member) for name, member in members.items() if wanted(name)]
        for name, member in chosen:
            check_end()
            target = into / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as out:
                    out.writelines(_chunks(archive, member))
            except OSError as error:
                raise write_error(target, error) from None
            if target.stat().st_size != member.size:
                raise InputError(f"{archive}: {name!r} does not have the size that the archive says")
    return len(chosen)


def member_names(archive: Path) -> list[str]:
    """The names of the regular members, after the same checks as for extraction."""
    with _opened(archive) as members:
        return list(members)


@contextmanager
def _opened(archive: Path) -> Iterator[dict[str, _Member]]:
    """The checked members of an archive, by name, while it is open."""
    with ExitStack() as stack:
        with _reading(archive):
            if archive.name.lower().endswith(".zip"):
                opened = stack.enter_context(open_zip(archive, _max_members(archive)))
                members = _checked(archive, _zip_members(opened))
            else:
                packed = not archive.name.lower().endswith(".tar")
                file = stack.enter_context(open_gzip(archive) if packed else archive.open("rb"))
                headers = _Headers(file, FREE_HEADER_BYTES + os.path.getsize(archive))
                tar = tarfile.TarFile(fileobj=cast(IO[bytes], headers), pax_headers=_GlobalRecords())
                members = _checked(archive, _tar_members(stack.enter_context(tar), headers))
                headers.end()
        yield members


def _chunks(archive: Path, member: _Member) -> Iterator[bytes]:
    """The content of a regular member."""
    with _reading(archive):
        source = member.open()
        assert source is not None  # a regular member can be opened
        with source:
            while chunk := source.read(2**20):
                yield chunk


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Makes InputError of the errors of reading an archive."""
    try:
        yield
    except InputError:
        raise
    except ARCHIVE_ERRORS as error:
        raise InputError(f"{archive}: cannot be read as an archive: {one_line(error)}; {AGAIN}") from None


def _zip_members(opened: zipfile.ZipFile) -> Iterator[_Member]:
    for entry in opened.infolist():
        mode = entry.external_attr >> 16
        is_regular = not mode or stat.S_IFMT(mode) in (0, stat.S_IFREG)
        if entry.flag_bits & 1:
            raise InputError(f"{opened.filename}: must not be encrypted, {entry.filename!r} is")
        if entry.compress_type not in ZIP_METHODS:
            by = f"{entry.filename!r} is by method {entry.compress_type}"
            raise InputError(f"{opened.filename}: must be compressed by deflate (method 8), {by}: pack it anew")
        yield _Member(entry.filename, entry.file_size, entry.is_dir(), is_regular, partial(opened.open, entry))


def _tar_members(opened: tarfile.TarFile, headers: _Headers) -> Iterator[_Member]:
    for entry in opened:
        headers.end_member()
        yield _Member(entry.name, entry.size, entry.isdir(), entry.isreg(), partial(opened.extractfile, entry))


def _checked(archive: Path, entries: Iterator[_Member]) -> dict[str, _Member]:
    """The regular members. Limits are checked while they are listed, since listing a packed tar unpacks it."""
    members: dict[str, _Member] = {}
    folded: set[str] = set()
    total, packed, limit = 0, os.path.getsize(archive), _max_members(archive)
    for number, entry in enumerate(entries, 1):
        if number > limit:
            raise InputError(f"{archive}: at most {limit:,} members are supported in {packed:,} bytes")
        if entry.is_folder:
            continue
        _check_member(archive, entry)
        name = str(PurePosixPath(entry.name))
        if name.casefold() in folded:
            raise InputError(f"{archive}: the member {name!r} is there twice")
        folded.add(name.casefold())
        members[name] = entry
        total += entry.size
        if total > MAX_TOTAL_BYTES or total > max(ALWAYS_ALLOWED_BYTES, MAX_RATIO * packed):
            rule = f"at most {MAX_RATIO} times its size and {MAX_TOTAL_BYTES:,} bytes"
            raise InputError(f"{archive}: must unpack to {rule}, got {total:,} from {packed:,}")
    return members


def _max_members(archive: Path) -> int:
    return min(MAX_MEMBERS, FREE_MEMBERS + os.path.getsize(archive) // BYTES_PER_MEMBER)


def _check_member(archive: Path, entry: _Member) -> None:
    name = entry.name
    leads_out = name.startswith("/") or ".." in PurePosixPath(name).parts
    if not name or leads_out or any(mark in name for mark in "\\:") or not name.isprintable():
        raise InputError(f"{archive}: members must lie inside the archive, got {name!r}")
    if not entry.is_regular:
        raise InputError(f"{archive}: members must be regular files, {name!r} is a link or something special")
    if entry.size > MAX_MEMBER_BYTES:
        limit = f"a member of at most {MAX_MEMBER_BYTES:,} bytes is supported"
        raise InputError(f"{archive}: {limit}, {name!r} has {entry.size:,}")
