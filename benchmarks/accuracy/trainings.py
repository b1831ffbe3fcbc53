"""The trainings of the arms: planned, handed out, judged and written down as they end."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from attunet.benchmarks.accuracy.arms import ARMS, FULL, Arm, FoldStore, Size, Task, plan
from attunet.benchmarks.accuracy.results import Results, Row, merged, summary, table
from attunet.benchmarks.accuracy.schedule import Context, Pool, run_tasks
from attunet.benchmarks.accuracy.stores import fold_stores, make_generated_store
from attunet.benchmarks.accuracy.work import Result, Setup
from attunet.benchmarks.crossvalidation.held_out import progress_of
from attunet.fields import JsonObject
from attunet.store import Store
from attunet.system.atomic_files import write_text
from attunet.system.environment import environment

logger = logging.getLogger(__name__)

RESULTS, TABLE = "results.json", "results.txt"
SLICES_OF_A_GENERATED_CASE = 30  # about


def better(
    store: Store,
    out: Path,
    *,
    arms: Sequence[Arm] = ARMS,
    source: Path | None = None,
    minutes: float = 4,
    processes: int = 8,
    device: str = "cuda",
    seeds: int = 2,
    size: Size = FULL,
) -> Results:
    """Train and judge the arms, as far as the time goes, and return the content of results.json.

    Args:
        out: folder of the runs and results; results that are there are kept.
        arms: in the order of their worth.
        source: where the source files of the store are now, if they moved.
        minutes: for everything.
        processes: trainings at once.
        seeds: trainings of each network on each fold.

    Example:
        >>> better(open_store("store"), Path("out"), minutes=4, processes=8)  # doctest: +SKIP
    """
    deadline, file = time.monotonic() + 60 * minutes, out / RESULTS
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = list(json.loads(file.read_text(encoding="utf-8"))["rows"]) if file.exists() else []
    generated = FoldStore(out / "generated", SLICES_OF_A_GENERATED_CASE * size.generated)
    folds = {scans: fold_stores(store, out / "stores", scans) for scans in {arm.scans for arm in arms}}
    tasks = plan(arms, folds, generated, out, num_seeds=seeds, size=size)
    left = unfinished(tasks, rows)
    logger.info(f"{len(tasks)} tasks, {len(tasks) - len(left)} of them done")
    timings: list[JsonObject] = []

    def write() -> Results:
        results = _results(store, rows, timings, arms, len(left) - len(timings))
        write_text(file, json.dumps(results, indent=1, allow_nan=False) + "\n")
        return results

    def report(result: Result) -> None:
        nonlocal rows
        rows, task = merged(rows, result.rows), result.task
        name = f"{task.kind} {task.arm}, {task.network} {task.seed}, fold {task.fold}"
        timings.append(
            {"task": name, "seconds": result.seconds, "slices_per_s": result.slices_per_s, "error": result.error}
        )
        dice = ", ".join(f"{row['kind']} {row['mean'] or 0:.4f}" for row in result.rows)
        logger.info(f"[{len(timings)}/{len(left)}] {result.seconds:5.1f} s  {name}: {result.error or dice}")
        write()

    with ExitStack() as stack:
        making = _start_generation(stack, generated.path, left, store, processes, size)
        pool = stack.enter_context(Pool(processes, Setup(source or store.source_root, device, out)))
        done = {task.run for task in tasks if task.kind != "ensemble" and progress_of(task.run)[1]}
        run_tasks(left, pool, deadline, done=done, report=report, making=making)
    results = write()
    write_text(out / TABLE, table(results) + "\n")
    return results


def unfinished(tasks: Sequence[Task], rows: Sequence[Row]) -> list[Task]:
    """The tasks that are left to do: those without rows, and trainings that are gone and that an ensemble still
    needs.
    """
    judged = {(row["arm"], row["network"], row["seed"], row["fold"]) for row in rows}

    def is_judged(task: Task) -> bool:
        return (task.arm, task.network, task.seed, task.fold) in judged

    needed = {need for task in tasks if task.kind != "pretrain" and not is_judged(task) for need in task.needs}
    missing = {need for need in needed if not progress_of(need)[1]}
    return [task for task in tasks if task.run in missing or (task.kind != "pretrain" and not is_judged(task))]


def _start_generation(
    stack: ExitStack, generated: Path, tasks: Sequence[Task], store: Store, processes: int, size: Size
) -> Callable[[], bool]:
    """Begin to make the generated store beside the trainings, where one needs it;
    returns a function that says if it is being made.
    """
    if not any(generated in task.needs for task in tasks) or (generated / "splits.json").exists():
        return lambda: False
    arguments = {"cases": size.generated, "processes": processes, "reduce": size.reduce}
    process = Context.Process(target=make_generated_store, args=(generated, store.data_config), kwargs=arguments)
    process.start()
    stack.callback(process.join)
    stack.callback(process.terminate)
    return process.is_alive


def _results(store: Store, rows: list[Row], timings: list[JsonObject], arms: Sequence[Arm], left: int) -> Results:
    return {
        "schema": 1,
        "environment": environment(),
        "store": store.name,
        "left": left,
        "reasons": {arm.name: arm.reason for arm in arms},
        "rows": rows,
        "trainings": timings,
        "summary": summary(rows, [arm for arm in ARMS if any(row["arm"] == arm.name for row in rows)]),
    }
