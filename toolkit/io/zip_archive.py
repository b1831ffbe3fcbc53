"""Taking a zip archive apart without trusting it."""

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from attunet.errors import InputError
from attunet.io.nifti import one_line
from attunet.system.atomic_files import name_in_errors

MAX_MEMBERS = 1_000_000
MAX_MEMBER_BYTES = 2**33
MAX_TOTAL_BYTES = 2**39
MAX_RATIO = 100  # of the whole archive; single masks may shrink further
ALWAYS_ALLOWED_BYTES = 2**30  # whatever the ratio

ZIP_ERRORS = (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zlib.error)


def extract(archive: Path, into: Path, wanted: Callable[[str], bool]) -> int:
    """Extract the wanted members below `into`; returns how many there are.

    Raises InputError, before a byte is written, for links and other special members, paths that lead out, names that are there twice,
    encryption, and sizes, counts or a ratio beyond the limits above; and for damaged data.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _checked_members(archive, opened)
            chosen = [(name, member) for name, member in members.items() if wanted(name)]
            for name, member in chosen:
                target = into / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with name_in_errors(target), opened.open(member) as source, target.open("xb") as out:
                    shutil.copyfileobj(source, out, 2**20)
                if target.stat().st_size != member.file_size:
                    raise InputError(f"{archive}: {name!r} does not have the size that the archive says")
    except InputError:
        raise
    except ZIP_ERRORS as error:
        raise InputError(f"{archive}: cannot be read as a zip archive: {one_line(error)}") from None
    return len(chosen)


def member_names(archive: Path) -> list[str]:
    """The names of the regular members, after the same checks as for extraction."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return list(_checked_members(archive, opened))
    except ZIP_ERRORS as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{archive}: cannot be read as a zip archive: {one_line(error)}") from None


def _checked_members(archive: Path, opened: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    entries = opened.infolist()
    if len(entries) > MAX_MEMBERS:
        raise InputError(f"{archive}: at most {MAX_MEMBERS:,} members are supported, got {len(entries):,}")
    members: dict[str, zipfile.ZipInfo] = {}
    folded: set[str] = set()
    for entry in entries:
        if entry.is_dir():
            continue
        _check_member(archive, entry)
        name = str(PurePosixPath(entry.filename))
        if name.casefold() in folded:
            raise InputError(f"{archive}: the member {name!r} is there twice")
        folded.add(name.casefold())
        members[name] = entry
    total, packed = sum(m.file_size for m in members.values()), os.path.getsize(archive)
    if total > MAX_TOTAL_BYTES or total > max(ALWAYS_ALLOWED_BYTES, MAX_RATIO * packed):
        raise InputError(
            f"{archive}: must unpack to at most {MAX_RATIO} times its size and {MAX_TOTAL_BYTES:,} bytes, got {total:,} from {packed:,}"
        )
    return members


def _check_member(archive: Path, entry: zipfile.ZipInfo) -> None:
    name, mode = entry.filename, entry.external_attr >> 16
    parts = PurePosixPath(name).parts
    if not name or name.startswith("/") or ".." in parts or "\\" in name or ":" in name or not name.isprintable():
        raise InputError(f"{archive}: members must lie inside the archive, got {name!r}")
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise InputError(f"{archive}: members must be regular files, {name!r} is a link or something special")
    if entry.flag_bits & 1:
        raise InputError(f"{archive}: must not be encrypted, {name!r} is")
    if entry.file_size > MAX_MEMBER_BYTES:
        raise InputError(f"{archive}: a member of at most {MAX_MEMBER_BYTES:,} bytes is supported, {name!r} has {entry.file_size:,}")
