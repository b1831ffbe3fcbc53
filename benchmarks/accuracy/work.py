"""One process that trains and judges: tasks come through a pipe, results go back."""

import gc
import logging
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from attunet.benchmarks.accuracy.arms import Task
from attunet.benchmarks.accuracy.results import Row
from attunet.errors import InputError, RunError
from attunet.presets import read_config
from attunet.runs.run_folder import SNAPSHOTS, read_metrics
from attunet.system.log_lines import forward_log

logger = logging.getLogger(__name__)

RECIPE = "chaos-cpu"


@dataclass(frozen=True)
class Result:
    """Outcome of a task. rows: one per judged case, as in results.json; error: empty if all went well."""

    task: Task
    seconds: float
    rows: list[Row] = field(default_factory=list)
    slices_per_s: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Setup:
    """Equal for all tasks. source: of the store's cases; device: `cpu` or `cuda`."""

    source: Path
    device: str
    log: Path


def work(connection: Connection, setup: Setup) -> None:
    """Do the tasks that come through the pipe until it gives None."""
    with setup.log.open("a", buffering=1, encoding="utf-8") as log, forward_log(lambda line: print(line, file=log)):
        while (task := connection.recv()) is not None:
            connection.send(_do(task, setup))


def _do(task: Task, setup: Setup) -> Result:
    began = time.monotonic()
    logger.info(f"{task.kind} {task.run}")
    try:
        rows = _judge(task, setup, "ensemble", task.run) if task.kind == "ensemble" else _train(task, setup)
    except (InputError, RunError, RuntimeError, OSError) as error:
        logger.exception("failed")
        return Result(task, time.monotonic() - began, error=f"{type(error).__name__}: {error}"[:300])
    return Result(task, time.monotonic() - began, rows, None if task.kind == "ensemble" else _speed(task.run))


def _train(task: Task, setup: Setup) -> list[Row]:
    import torch

    from attunet.training.loop import train

    config = read_config(RECIPE, (f"run.device={setup.device}", f"model.name={task.network}", *task.settings))
    fold = "all" if task.kind == "pretrain" else 0
    train(task.store, task.run, config, fold=fold, resume="auto", init=task.init)  # type: ignore[arg-type]
    gc.collect()  # the graph's memory
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if task.kind == "pretrain":
        return []
    rows = _judge(task, setup, "single", task.run)
    if (task.run / SNAPSHOTS).is_dir():
        rows += _judge(task, setup, "snapshots", task.run / SNAPSHOTS)
    return rows


def _judge(task: Task, setup: Setup, kind: str, path: Path) -> list[Row]:
    """Dice of the held-out cases on the native grid after finishing, computed as the cross-validation does."""
    from attunet.evaluate_case import evaluate_case, read_labelled_case
    from attunet.export.load_model import load_model
    from attunet.metrics.aggregate import mean, nan_to_null
    from attunet.metrics.overlap import dice_from_confusion
    from attunet.store import open_store

    store = open_store(task.store)
    model = load_model(path, device=setup.device)
    rows: list[Row] = []
    for name in store.split(0)[1]:
        assert name not in model.training_cases, f"{name} was trained on"
        case = read_labelled_case(store, name, setup.source)
        dice = dice_from_confusion(evaluate_case(model, case).confusion)[1:]
        rows.append(
            {
                "arm": task.arm,
                "kind": kind,
                "network": task.network,
                "seed": task.seed,
                "fold": task.fold,
                "case": name,
                "patient": store.case(name).patient,
                "mean": mean(dice),
                "dice": {**dict(zip(store.classes.foreground, map(float, dice), strict=True))},
            }
        )
    return nan_to_null(rows)


def _speed(run: Path) -> float | None:
    """Slices per second of a training, from its log."""
    speeds = [row["slices_per_s"] for row in read_metrics(run) if row["event"] == "speed"]
    return speeds[-1] if speeds else None
