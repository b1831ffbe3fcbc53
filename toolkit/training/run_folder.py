"""The folder of one training: who may write in it, its figures, its environment."""

import json
import os
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from attunet.atomic import write_text
from attunet.errors import InputError

LOCK = "run.lock"
DEAD_AFTER_S = 1800.0  # a lock of another machine without a sign of life for so long is a dead one's


class RunFolder:
    """Held by one training at a time; the main process alone makes one.

    The lock names machine and process and is touched whenever a line is logged, so a dead process's lock is recognised on the same
    machine at once and from another machine after `DEAD_AFTER_S`; it needs no file locking, which NFS may lack.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self._started = time.time()

    def __enter__(self) -> "RunFolder":
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            (self.path / "plots").mkdir(exist_ok=True)
            self._take_lock()
        except OSError as error:
            raise InputError(f"{self.path}: the run folder cannot be written: {error.strerror}") from None
        for partial in [*self.checkpoints.glob("*.partial"), *self.checkpoints.glob("*.replaced")]:
            shutil.rmtree(partial)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        (self.path / LOCK).unlink(missing_ok=True)
        if error is not None:  # a call that was refused leaves no empty folder behind
            for folder in (self.checkpoints, self.path / "plots", self.path):
                with suppress(OSError):
                    folder.rmdir()

    def log(self, event: str, **figures: Any) -> None:
        """Appends one line to `metrics.jsonl` and shows that the run is alive."""
        line = json.dumps({"event": event, **figures})
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        os.utime(self.path / LOCK)

    def forget_after(self, step: int) -> None:
        """Drops the figures of steps after `step`, which a resumed training makes again."""
        if not self.metrics.exists():
            return
        write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in read_metrics(self.path) if row["step"] <= step))

    def _take_lock(self) -> None:
        lock = self.path / LOCK
        mine = json.dumps({"host": socket.gethostname(), "pid": os.getpid()})
        while True:
            try:
                descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                self._remove_dead_lock(lock)
                continue
            with os.fdopen(descriptor, "w") as file:
                file.write(mine)
            return

    def _remove_dead_lock(self, lock: Path) -> None:
        try:
            age = time.time() - lock.stat().st_mtime
            holder = json.loads(lock.read_text())
        except FileNotFoundError:
            return
        except ValueError:  # killed between making and filling it
            holder = {"host": "?", "pid": -1}
        here = holder["host"] == socket.gethostname()
        if _alive(holder["pid"]) if here else age < DEAD_AFTER_S:
            raise InputError(f"{self.path}: in use by process {holder['pid']} on {holder['host']}; one training at a time ({lock.name})")
        lock.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; a last line cut off by a crash is left out."""
    rows = []
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
