"""The folder of one training: its lock and its metrics."""

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import cast

from attunet.config import ResolvedConfig
from attunet.errors import InputError
from attunet.fields import Fields, Rule, is_utf8, parse_json, read_json
from attunet.metrics.aggregate import nan_to_null
from attunet.metrics.results import MetricsRow
from attunet.system.atomic_files import clear_unfinished, name_in_errors, write_error, write_text
from attunet.system.lock import Lock
from attunet.system.outputs import require_own_folder

LOCK = "run.lock"
CHECKPOINTS = "checkpoints"
SNAPSHOTS = "snapshots"
DICE = Rule(float, 0, 1, null=True)
DESCRIPTION = ("environment.json", "config.toml", "metrics.jsonl")  # files of a training, in the order of writing
DESCRIBED = "data_tier"  # a field of the first of them
CURVES = "plots/training.png"
REPLACED = (*DESCRIPTION, f"{CHECKPOINTS}/[!.]*", f"{SNAPSHOTS}/[!.]*", CURVES)  # by a training, or removed
BEST = "best"
WRITTEN = (BEST, "step-*")  # folders in those of checkpoints and snapshots
DEPTH = 3  # MODEL/seed-S/fold-K of a cross-validation


class RunFolder:
    """Locked by one training at a time while entered; only the main process enters it.

    Raises InputError for a folder with another product, such as a store.
    """

    def __init__(self, path: Path) -> None:
        require_own_folder(path, "a run")
        if not is_utf8(str(path.absolute())):
            raise InputError(f"{path}: must have a path in UTF-8, as safetensors opens no other: rename its folder")
        foreign = next(chain(*map(path.glob, REPLACED)), None)
        if foreign and not _is_of_a_training(path):
            held = foreign.relative_to(path)
            raise InputError(f"{path}: holds {held}, which a training would replace; name another folder")
        self.path = path
        self.checkpoints = path / CHECKPOINTS
        self.snapshots = path / SNAPSHOTS
        self.metrics = path / "metrics.jsonl"
        self.curves = path / CURVES
        self._lock = Lock(path / LOCK, path, "training")
        self.check_held = self._lock.check

    def __enter__(self) -> "RunFolder":
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.curves.parent.mkdir(exist_ok=True)
            self._lock.__enter__()
            for folder in (self.checkpoints, self.snapshots):
                clear_unfinished(folder, WRITTEN)
        except OSError as error:
            raise write_error(self.path, error) from None
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.__exit__(kind, error, trace)
        if error is not None:  # a failed start leaves no empty folder behind
            for folder in (self.checkpoints, self.curves.parent, self.path):
                with suppress(OSError):
                    folder.rmdir()

    def write_config(self, config: ResolvedConfig) -> None:
        write_text(self.path / DESCRIPTION[1], config.to_toml())

    def log(self, event: str, **figures: object) -> None:
        """Append one line to `metrics.jsonl`; numbers that are not finite become null, as JSON has no name for them.
        Raises RunError where another training has taken over the folder.
        """
        self.check_held()
        line = json.dumps(nan_to_null({"event": event, **figures}), allow_nan=False)
        with name_in_errors(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def draw_curves(self) -> None:
        from attunet.plots.curves import draw_curves  # imports matplotlib, which takes seconds

        draw_curves(self.curves, {self.path.name: read_metrics(self.path)}, title=self.path.name)

    def forget_after(self, step: int) -> None:
        """Delete the lines and the snapshots of steps after `step`, and the lines of its end, which a resumed training
        repeats; at the start of a new one all that an earlier one left here, of which no checkpoint is but the best.
        """
        if step == 0 and (best := self.checkpoints / BEST).is_dir():
            shutil.rmtree(best)
        for snapshot in self.snapshots.glob("step-*"):
            if snapshot.name > step_name(step):
                shutil.rmtree(snapshot)
        if self.metrics.is_file():  # with one line alone that a crash cut, too: the next one would be joined to it
            rows = (row for row in read_metrics(self.path) if row["step"] <= step)
            kept = (row for row in rows if row["event"] not in ("speed", "native"))
            write_text(self.metrics, "".join(json.dumps(row) + "\n" for row in kept))


def _is_of_a_training(path: Path) -> bool:
    """True where a training has described itself in the folder, or left a checkpoint; either may have been removed
    since. A folder `checkpoints` alone tells nothing: other programs make it too.
    """
    if any(path.glob(f"{CHECKPOINTS}/step-*/average.safetensors")):
        return True
    try:
        return DESCRIBED in read_json(path / DESCRIPTION[0]).data
    except (InputError, OSError):
        return False


def step_name(step: int) -> str:
    """The folder of a checkpoint or a snapshot; names have the order of the steps."""
    return f"step-{step:010d}"


def is_snapshots(path: Path) -> bool:
    """True for the folder of a run that `run.snapshots` made."""
    return path.name == SNAPSHOTS and any(path.glob("step-*"))


def holds_runs(path: Path) -> bool:
    """True for a run, for the snapshots of one, and for a folder with runs up to three levels below it."""
    return is_snapshots(path) or any(folders_with(CHECKPOINTS, path, DEPTH))


def folders_with(entry: str, path: Path, max_depth: int) -> Iterator[Path]:
    """Folders with an entry of this name, in a folder or up to `max_depth` levels below it; by level, then by name."""
    for depth in range(max_depth + 1):
        yield from sorted(one.parent for one in path.glob("/".join(["*"] * depth + [entry])))


def read_metrics(run: Path) -> list[MetricsRow]:
    """Read the lines of a run's `metrics.jsonl`, if there is one. A line that no training has written, as a crash
    leaves it, is left out.
    """
    path = run / "metrics.jsonl"
    rows: list[MetricsRow] = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with suppress(ValueError):
            rows.append(_row(Fields(parse_json(line), str(path))))
    return rows


def _row(at: Fields) -> MetricsRow:
    """A line whose fields that others read have their types; raises InputError for others."""
    event, _ = at.text("event"), at.whole("step")
    for field in ("epoch", "seconds"):
        at.get(field, Rule(float, low=0))
    if event in ("train", "validation"):
        at.get("loss", Rule(float, null=True))
    if event in ("validation", "native"):
        dice = at.inner("dice")
        dice.get("mean", DICE)
        for name in (classes := dice.inner("per_class")).data:
            classes.get(name, DICE)
    return cast(MetricsRow, at.data)
