"""A lock for what one process at a time may write, also on a file system that several machines share.

filelock needs the file locks that NFS may lack.
"""

import fcntl
import functools
import json
import logging
import math
import os
import secrets
import socket
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from attunet.errors import InputError, RunError
from attunet.fields import parse_json

logger = logging.getLogger(__name__)

BEAT_S = 5.0
SILENT_S = 60.0  # NFS may show an old modification time for so long
POLL_S = 1.0
MAX_BYTES = 4096  # of a lock that is read
_HELD: set[str] = set()  # contents of the locks that this process holds, in any of its threads


class InUse(InputError):
    """Another process holds a lock."""


class Lock:
    """A file that its holder touches every few seconds; needs neither file locks nor synchronised clocks.

    A holder whose process id no longer exists on this machine is dead. Any other holder (on another machine, in another
    container, with a reused process id) is watched: if the file's modification time does not change for `SILENT_S`, the
    holder is dead. A process that was suspended and lost the lock notices in `check`, before it writes.

    Folders above the file are made, and removed again if they stay empty. Messages name the file or folder that is
    protected, and what the holder does.
    """

    def __init__(self, path: Path, subject: Path, activity: str) -> None:
        self.path, self._subject, self._activity = path, subject, activity
        self._made_folders: list[Path] = []
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "place": place(), "token": secrets.token_hex(8)}
        self._content = json.dumps(holder)
        self._left = threading.Event()

    def __enter__(self) -> "Lock":
        """Take the lock. Raises InUse when another process holds it, OSError when it cannot be written."""
        self._made_folders = [folder for folder in self.path.parents if not folder.exists()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while not self._create():
            require_free([self])
        threading.Thread(target=self._beat, name="lock", daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._left.set()
        self._remove(self._content)
        _HELD.discard(self._content)
        for folder in self._made_folders:
            with suppress(OSError):  # something was written there
                folder.rmdir()

    def check(self) -> None:
        """Raise RunError if another process has taken over."""
        if (content := self._read()) != self._content:
            raise RunError(
                f"{self._subject}: {_describe(content or '')} has taken over; this {self._activity} ends and writes "
                "nothing more"
            )

    def _create(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        _HELD.add(self._content)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(self._content)
        except OSError as error:  # a full disk, which the system does not name
            self.path.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        return True

    def _beat(self) -> None:
        while not self._left.wait(BEAT_S):
            with suppress(OSError, InputError):  # `check` reports a lost lock
                if self._read() == self._content:
                    os.utime(self.path)

    def _touched(self) -> int | None:
        with suppress(FileNotFoundError), self._open() as file:  # opening makes NFS ask the server
            return os.fstat(file.fileno()).st_mtime_ns
        return None

    def _read(self) -> str | None:
        with suppress(FileNotFoundError), self._open() as file:
            return file.read(MAX_BYTES).decode("utf-8", "replace")
        return None

    def _remove(self, content: str) -> None:
        """Remove the file if it still has this content: two processes that find a dead one's would otherwise remove
        each other's. Where files cannot be locked, a moment is left.
        """
        with suppress(FileNotFoundError, BlockingIOError), self._open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another process is about to remove it
                raise
            except OSError:
                logger.debug(f"{self.path}: file locks are not supported")
            is_this = os.path.samestat(os.fstat(file.fileno()), os.lstat(self.path))
            if is_this and file.read(MAX_BYTES).decode("utf-8", "replace") == content:
                self.path.unlink()

    def _open(self) -> BinaryIO:
        """Open the file for reading; a link, a pipe or a device, from which reading might never end, is refused."""
        try:
            file = os.fdopen(os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb", buffering=0)
        except FileNotFoundError:
            raise
        except OSError as error:  # a link, a folder
            raise InputError(f"{self.path}: cannot be read as a lock: {error.strerror}; remove it") from None
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise InputError(f"{self.path}: a lock must be a regular file; remove it")
        return file


def require_free(locks: Sequence[Lock]) -> None:
    """Raise InUse if another process holds one of the locks; those of dead ones are removed. All are watched at
    the same time: the processes of an array may have left hundreds.
    """
    while held := {lock: content for lock in locks if (content := lock._read()) is not None}:
        _wait_for_silence(held)
        for lock, content in held.items():
            lock._remove(content)


def _wait_for_silence(held: Mapping[Lock, str]) -> None:
    """Return once the holders are known to be dead. Raises InUse as soon as one touches its file."""
    before = {lock: lock._touched() for lock, content in held.items() if not _is_gone(content)}
    if not before:
        return
    first, more = next(iter(before)), f" and {len(before) - 1} more" if len(before) > 1 else ""
    logger.info(
        f"{first._subject}: locked by {_describe(held[first])}{more}; waiting up to {SILENT_S:.0f} s to see if it is "
        "alive"
    )
    end = time.monotonic() + SILENT_S
    while before and time.monotonic() < end:
        now = {lock: touched for lock in before if (touched := lock._touched()) is not None}
        if alive := next((lock for lock, touched in now.items() if touched != before[lock]), None):
            raise InUse(
                f"{alive._subject}: in use by {_describe(held[alive])}; one {alive._activity} at a time "
                f"({alive.path.name})"
            )
        before = {lock: before[lock] for lock in now}
        time.sleep(POLL_S if before else 0)


def writing(subject: Path, activity: str, *, part: str = "") -> Lock:
    """The lock of a file or folder that a command writes: a hidden file beside it, or in a folder that is the root of a
    file system or lies where nothing may be written, as the volume of a container does.

    Args:
        activity: for messages, e.g. "export".
        part: names the share of a process, where several processes write different files of one folder.
    """
    path = beside(subject, ".", f"{part}.lock")
    if subject.is_dir() and path.parent.is_dir() and not os.access(path.parent, os.W_OK | os.X_OK):
        path = subject / path.name
    return Lock(path, subject, activity)


@contextmanager
def waiting(subject: Path, activity: str, *, part: str = "", max_s: float = math.inf) -> Iterator[Lock]:
    """Hold the lock of `writing`, and give it. Others hold it for moments: one that has changed hands is waited for
    too. Raises InUse after `max_s` seconds.
    """
    end = time.monotonic() + max_s
    with ExitStack() as stack:
        while True:
            try:
                lock = stack.enter_context(writing(subject, activity, part=part))
                break
            except InUse:
                if time.monotonic() > end:
                    raise
        yield lock


def beside(path: Path, before: str, after: str) -> Path:
    """A path in the same folder: the name of the file or folder between two texts. `path` may be `.` or a link."""
    real = Path(os.path.realpath(path))
    return real.parent / f"{before}{real.name}{after}"


@functools.cache
def place() -> str:
    """Identify the scope of process ids: this machine since its boot, and the process namespace."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # only Linux has these
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def is_running(process: int) -> bool:
    """Return True if a process of this machine may have this id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's, or an id of another machine
        pass
    return True


def _is_gone(content: str) -> bool:
    """Return True if the holder was a process here that no longer exists."""
    try:
        holder = parse_json(content)
        if holder["place"] != place():
            return False
        is_reused = holder["pid"] == os.getpid() and content not in _HELD  # this process has the id of a dead one
        return is_reused or not is_running(holder["pid"])
    except (ValueError, KeyError, TypeError):
        return False


def _describe(content: str) -> str:
    try:
        holder = parse_json(content)
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):  # the holder was killed between creating and filling it
        return "an unknown process"
