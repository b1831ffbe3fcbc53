"""Files and folders that are either whole or not there."""

import errno
import functools
import glob
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from attunet.errors import DiskError, InputError
from attunet.fields import is_file_name, read_json, shown
from attunet.system.lock import is_running, place

MANIFEST = "manifest.json"
MAX_NAME_BYTES = 200  # of a file's name that its temporary name repeats; file systems allow 255
ABANDONED_S = 86_400.0


@contextmanager
def name_in_errors(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Gives an `OSError` of writing the name of the file, in place of its temporary name too: the system gives it to
    errors of opening alone, and copying names its source first.
    """
    try:
        yield
    except OSError as error:
        if error.filename not in (None, str(temporary), temporary) and error.filename2 is None:
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


def write_error(path: Path, error: OSError) -> InputError | DiskError:
    """The error for a file or folder that could not be written: DiskError where the disk is full or fails,
    InputError where the path is wrong.
    """
    kind = DiskError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO) else InputError
    return kind(f"{error.filename or path}: cannot be written: {error.strerror or error}")


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path beside `path` (same suffix), makes it durable and renames it into place.

    Raises InputError where a folder is at `path`.
    """
    if path.is_dir():
        raise InputError(f"{path}: must be the name of a file, and is a folder")
    _remove_leftovers(path)
    temporary = path.with_name(f".{os.getpid()}-{_place_hash()}.partial.{_short(path.name)}")
    try:
        with name_in_errors(path, temporary):
            write(temporary)
            sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def _remove_leftovers(path: Path) -> None:
    """Removes the temporary files of `path` whose process was killed, or is of elsewhere and has written nothing for a
    day: containers and machines that share a folder have processes of the same ids.
    """
    for left in path.parent.glob(f".*-*.partial.{glob.escape(_short(path.name))}"):
        process, _, where = left.name.split(".")[1].partition("-")
        with suppress(OSError):  # another process has removed it, or it is none of ours
            is_here, age = where == _place_hash(), time.time() - left.stat().st_mtime
            if process.isdecimal() and (not is_running(int(process)) if is_here else age > ABANDONED_S):
                left.unlink()


@functools.cache
def _place_hash() -> str:
    return hashlib.sha256(place().encode()).hexdigest()[:8]


def _short(name: str) -> str:
    """The file name with room for a prefix: of a long one its hash and its end, so that no two share a name.

    Its ending is in small letters: nibabel writes `x.nii` for `x.Nii`.
    """
    name = re.sub(r"(?i)(\.nii)?\.\w+$", lambda ending: ending[0].lower(), name)
    data = os.fsencode(name)
    if len(data) <= MAX_NAME_BYTES:
        return name
    return hashlib.sha256(data).hexdigest()[:32] + os.fsdecode(data[-MAX_NAME_BYTES // 2 :])


def write_text(path: Path, text: str) -> None:
    write_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_folder(path: Path, files: Mapping[str, Callable[[Path], object]]) -> None:
    """Writes a folder with its files and a manifest of their SHA-256; `path` appears last, replacing an older one.

    Each file is synced, then the manifest, then the folder; the rename is made durable by syncing the parent.
    """
    partial, replaced = path.with_name(path.name + ".partial"), path.with_name(path.name + ".replaced")
    for folder in (partial, replaced):
        require_leftover(folder, (*files, MANIFEST))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for name, write in files.items():
            with name_in_errors(partial / name):
                write(partial / name)
                sync(partial / name)
        manifest, hashes = partial / MANIFEST, {name: sha256(partial / name) for name in files}
        with name_in_errors(manifest):
            manifest.write_text(json.dumps({"schema": 1, "sha256": hashes}, indent=1), encoding="utf-8")
        sync(manifest)
        sync(partial)
        if path.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            os.rename(path, replaced)
        os.rename(partial, path)
        shutil.rmtree(replaced, ignore_errors=True)  # a killed process may have left it, and no folder
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # is there after a failure alone: a full disk gets its room back
    sync(path.parent)


def require_leftover(folder: Path, names: Collection[str]) -> None:
    """Raises InputError where a folder in the place of unfinished work holds more than a killed call has left there: a
    user's files, which would go with it. names: of the files and folders that such work has, or their patterns.
    """
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and not any(path.match(name) for name in names):
            raise InputError(f"{folder}: is needed for unfinished work, and holds {path.name}: rename or remove it")


def clear_unfinished(parent: Path, names: Iterable[str]) -> None:
    """Undoes a crash inside `write_folder` under `parent`, of folders with these names or patterns; puts a replaced
    folder back that has no successor.
    """
    for partial in chain(*(parent.glob(f"{name}.partial") for name in names)):
        shutil.rmtree(partial)
    for replaced in chain(*(parent.glob(f"{name}.replaced") for name in names)):
        path = replaced.with_suffix("")
        if path.exists():
            shutil.rmtree(replaced)
        else:
            os.rename(replaced, path)


def verify_folder(path: Path, needed: Iterable[str]) -> None:
    """Verify a folder written by `write_folder`. Raises InputError where a file is missing, was changed, or is needed
    and not in the list of hashes. needed: names of the files that are going to be read.
    """
    manifest = path / MANIFEST
    hashes = read_json(manifest).texts("sha256")
    if unlisted := sorted(set(needed) - set(hashes)):
        raise InputError(f"{manifest}: must have the SHA-256 of {unlisted[0]}, which it does not name")
    for name, expected in hashes.items():
        if not is_file_name(name):
            raise InputError(f"{manifest}: must name files of its own folder, got {shown(name)}")
        try:
            digest = sha256(path / name)
        except OSError as error:
            raise InputError(f"{path}: incomplete: {type(error).__name__}: {error}") from None
        if digest != expected:
            raise InputError(f"{path / name}: its SHA-256 is not the one in {MANIFEST}: the file is damaged")


def require_regular(path: Path) -> None:
    """Raises OSError for a pipe or a device, from which reading might never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "is no regular file", str(path))


def sha256(path: Path) -> str:
    """SHA-256 of a regular file. Raises OSError for others."""
    require_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def joined_hash(hashes: Sequence[str]) -> str:
    """Join the hashes of several files to one; the hash of a single file is returned as it is."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def sync(path: Path) -> None:
    """Makes a file durable, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
