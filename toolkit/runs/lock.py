"""Who may write in a run folder: one training at a time, also where several machines see it."""

import json
import logging
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from attunet.errors import InputError, RunError

logger = logging.getLogger(__name__)

LOCK = "run.lock"
BEAT_S = 5.0
SILENT_S = 60.0  # as long as NFS may go on showing what a file was
LOOK_EVERY_S = 1.0


class Lock:
    """A file that its holder touches every few seconds: it needs no file locking, which NFS may lack, and no clock that is right.

    A process that is gone from this machine is known to be dead. Whether any other lives (on another machine, in another container,
    under a number that was given anew) is seen by watching: a file that nobody touches for `SILENT_S` is a dead one's, whatever time
    it bears. A holder that was only stopped meanwhile finds the lock another's in `check`, before it writes.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "place": _place(), "token": secrets.token_hex(8)}
        self._mine = json.dumps(holder)
        self._left = threading.Event()

    def __enter__(self) -> "Lock":
        """Raises InputError when the folder is in use, OSError when it cannot be written."""
        while not self._create():
            content = self._read()
            if content is not None:
                self._wait_for_silence(content)
                if self._read() == content:
                    self.path.unlink(missing_ok=True)
        threading.Thread(target=self._beat, name="lock", daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._left.set()
        if self._read() == self._mine:
            self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raises RunError when another training has taken the folder over."""
        if (content := self._read()) != self._mine:
            raise RunError(f"{self.path.parent}: {_in_words(content or '')} has taken this run over; this one ends and writes nothing more")

    def _create(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(self._mine)
        except OSError:  # a full disk
            self.path.unlink(missing_ok=True)
            raise
        return True

    def _wait_for_silence(self, content: str) -> None:
        """Returns once the holder is known to be dead. Raises InputError as soon as it shows a sign of life."""
        if _is_gone(content):
            return
        logger.info(f"{self.path.parent}: locked by {_in_words(content)}; watching for up to {SILENT_S:.0f} s whether it lives")
        seen, end = self._touched(), time.monotonic() + SILENT_S
        while time.monotonic() < end and (now := self._touched()) is not None:
            if now != seen:
                raise InputError(f"{self.path.parent}: in use by {_in_words(content)}; one training at a time ({self.path.name})")
            time.sleep(LOOK_EVERY_S)

    def _beat(self) -> None:
        while not self._left.wait(BEAT_S):
            with suppress(OSError):  # `check` tells when the lock is gone
                if self._read() == self._mine:
                    os.utime(self.path)

    def _touched(self) -> int | None:
        with suppress(FileNotFoundError), self.path.open() as file:  # opening makes NFS ask the server
            return os.fstat(file.fileno()).st_mtime_ns
        return None

    def _read(self) -> str | None:
        with suppress(FileNotFoundError):
            return self.path.read_text(encoding="utf-8")
        return None


def _place() -> str:
    """Where a process number means one process: this machine since it was started, and its namespace of processes."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # Linux alone has these
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _is_gone(content: str) -> bool:
    """Whether the holder was a process of this place that is no more."""
    try:
        holder = json.loads(content)
        if holder["place"] != _place():
            return False
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError, KeyError, TypeError):
        return False
    return bool(holder["pid"] == os.getpid())  # a number given anew, to this process


def _in_words(content: str) -> str:
    try:
        holder = json.loads(content)
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):  # killed between making and filling it
        return "a process without a name"
