"""The folder of one training: who may write in it, its figures, its environment."""

import json
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from attunet.errors import InputError
from attunet.runs.lock import Lock
from attunet.system.atomic_files import clear_unfinished, name_in_errors, write_text


class RunFolder:
    """Held by one training at a time; the main process alone enters one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self._lock = Lock(path)
        self.check_held = self._lock.check

    def __enter__(self) -> "RunFolder":
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            (self.path / "plots").mkdir(exist_ok=True)
            self._lock.__enter__()
            clear_unfinished(self.checkpoints)
        except OSError as error:
            raise InputError(f"{self.path}: the run folder cannot be written: {error.strerror}") from None
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.__exit__(kind, error, trace)
        if error is not None:  # a call that was refused leaves no empty folder behind
            for folder in (self.checkpoints, self.path / "plots", self.path):
                with suppress(OSError):
                    folder.rmdir()

    def log(self, event: str, **figures: Any) -> None:
        """Appends one line to `metrics.jsonl`. Raises RunError when another training has taken the folder over."""
        self.check_held()
        line = json.dumps({"event": event, **figures})
        with name_in_errors(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def forget_after(self, step: int) -> None:
        """Drops the figures of steps after `step`, which a resumed training makes again."""
        if rows := read_metrics(self.path):
            write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, none where there is no such file; a last line cut off by a crash is left out."""
    rows: list[dict[str, Any]] = []
    if not (run / "metrics.jsonl").exists():
        return rows
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
