"""A temporary folder that only its user can read; it is removed at the end, or by the next process that makes one."""

import fcntl
import hashlib
import os
import shutil
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from attunet.system.atomic_files import ABANDONED_S, write_error

ANY = ".attunet-temporary-"
# With the machine: file locks of a file system that several machines share may hold on one of them alone
PREFIX = f"{ANY}{hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]}-"


class PrivateFolder:
    """A folder that belongs to this process, which holds a lock on it. A folder without a lock was left by a killed
    process, and is removed.

    Args:
        parent: the folder that it lies in; the system's for temporary files without one.
        is_brief: True for a folder of minutes. It has a hidden place among a user's files, which other machines and
            containers may share: what they left there is removed after a day.
    """

    def __init__(self, parent: Path | None = None, *, is_brief: bool = False) -> None:
        parent = parent or Path(tempfile.gettempdir())
        try:
            parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(parent, are_brief=is_brief)
            self.path, self._lock = _locked_folder(parent)
        except OSError as error:
            raise write_error(parent, OSError(error.errno, error.strerror or str(error))) from None

    def request_folder(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="request-", dir=self.path))

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def remove_abandoned(parent: Path, *, are_brief: bool = False) -> None:
    """Removes the folders of processes that are no longer alive; those of other users stay. With `are_brief` also those
    that nobody has changed for a day, where no lock tells (on some file systems of clusters) or the process was of
    another machine or container.
    """
    for path in parent.glob(f"{ANY if are_brief else PREFIX}*"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            if _is_abandoned(path, descriptor, is_brief=are_brief):
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(descriptor)


def _is_abandoned(path: Path, descriptor: int, *, is_brief: bool) -> bool:
    status, lock_tells = os.fstat(descriptor), path.name.startswith(PREFIX)
    if status.st_uid != os.geteuid():
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # its process is alive
        return False
    except OSError:  # the file system has no locks
        lock_tells = False
    return lock_tells or (is_brief and time.time() - status.st_mtime > ABANDONED_S)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    """A new folder and the descriptor of its lock; another try if a second process removed it before the lock."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent.absolute()))  # mode 0700
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        with suppress(OSError):  # a file system without locks, on which `remove_abandoned` removes nothing
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():
            return path, descriptor
        os.close(descriptor)
