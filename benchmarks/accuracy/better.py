"""Planned changes of the recipe `chaos-cpu`, each judged leave-one-out against the plain recipe,
in a few minutes of one GPU.

`python -m attunet.benchmarks.accuracy.better STORE OUT --source CASES --minutes 4 --processes 8 --device cuda` trains
both networks with two seeds on every fold (one patient left out) for each arm of `attunet.benchmarks.accuracy.arms`,
several trainings at once, and judges, on the native grid of the source files after finishing, as
`attunet crossvalidate` does: each network alone, the ensemble of both networks and seeds (four members), and the
ensemble of four snapshots along each training. The store is one that `attunet prepare --config chaos-cpu` made; its own
folds do not count.

The arms and their reasons were fixed before anything was measured, as was the analysis: for each arm the paired
difference of mean Dice against the arm it is compared with, averaged over networks and seeds for each case, its mean
over the cases with its 95 % interval; an arm is kept where the interval leaves out zero. The same for the ensembles of
an arm against its single networks. Means of one network or organ are printed, and decide nothing.

OUT/results.json is written after every training; the same call does what is left, in the order of worth: the plain arm,
one seed of every other arm, the next seed, and at the end the arms that start from generated abdomens.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from attunet.benchmarks.accuracy.arms import ARMS, Arm, Training, plan, pretraining
from attunet.benchmarks.accuracy.results import confusion_of, judge, merged, summary, table
from attunet.benchmarks.accuracy.stores import fold_stores, generated_store
from attunet.benchmarks.crossvalidation.held_out import progress_of
from attunet.benchmarks.crossvalidation.jobs import Job, run_jobs, visible_gpus
from attunet.benchmarks.evaluation.results_table import Json
from attunet.benchmarks.program import add_settings, program_parser, require_same_call, running
from attunet.errors import InputError, RunError
from attunet.export.load_model import load_model
from attunet.runs.run_folder import SNAPSHOTS, read_metrics
from attunet.store import Store, open_store
from attunet.system.atomic_files import write_text
from attunet.system.environment import environment

logger = logging.getLogger(__name__)

Ended = tuple[Training, float, str]  # seconds, and the reason where it failed


def better(
    store: Store,
    out: Path,
    *,
    arms: Sequence[Arm] = ARMS,
    minutes: float = 4,
    processes: int = 8,
    device: str = "cuda",
    seeds: int = 2,
    settings: Sequence[str] = (),
) -> Json:
    """Trains and judges the arms, in the order of their worth and as far as the time goes, and returns the content of
    results.json; other arguments are the program's options. Raises InputError where an earlier call had another store
    or other settings.

    Example:
        >>> better(open_store("store"), Path("out"), minutes=4, processes=8)  # doctest: +SKIP
    """
    deadline, file = time.monotonic() + 60 * minutes, out / "results.json"
    require_same_call(out / "call.json", {"store": store.sha256, "settings": list(settings)})
    rows: list[Json] = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    folds = {scans: fold_stores(store, out / "stores", scans) for scans in {arm.scans for arm in arms}}
    chosen = (*settings, f"run.device={device}")
    trainings = plan(arms, folds, out / "runs", num_seeds=seeds, settings=chosen)
    left = unfinished(trainings, rows)
    logger.info(f"{len(trainings)} trainings, {len(trainings) - len(left)} of them done")
    timings: list[Json] = []

    def write() -> Json:
        results = {
            "schema": 1,
            "environment": environment(),
            "store": store.name,
            "left": len(left) - len(timings),
            "reasons": {arm.name: arm.reason for arm in arms},
            "rows": rows,
            "trainings": timings,
            "summary": summary(rows, [arm for arm in ARMS if any(row["arm"] == arm.name for row in rows)]),
        }
        write_text(file, json.dumps(results, indent=1, allow_nan=False) + "\n")
        return results

    for training, seconds, failure in _ended(left, store, out, processes, device, deadline, chosen):
        new, error = ([], failure) if failure else _judge(training, trainings, store, device)
        rows = merged(rows, new)
        speed = next((row["slices_per_s"] for row in read_metrics(training.run) if row["event"] == "speed"), None)
        timings.append({"task": training.name, "seconds": seconds, "slices_per_s": speed, "error": error})
        dice = ", ".join(f"{row['kind']} {row['mean'] or 0:.4f}" for row in new)
        logger.info(f"[{len(timings)}/{len(left)}] {seconds:5.1f} s  {training.name}: {error or dice}")
        write()
    return write()


def unfinished(trainings: Sequence[Training], rows: Sequence[Json]) -> list[Training]:
    """The trainings that are not judged, and the members of ensembles that are not."""
    judged = {(row["arm"], row["network"], row["seed"], row["fold"]) for row in rows}

    def is_judged(one: Training) -> bool:
        wanted = [(one.network, one.seed), *([("all", -1)] if one.arm.has_ensembles else [])]
        return all((one.arm.name, network, seed, one.fold) in judged for network, seed in wanted)

    return [training for training in trainings if not is_judged(training)]


def _ended(
    left: Sequence[Training],
    store: Store,
    out: Path,
    processes: int,
    device: str,
    deadline: float,
    settings: Sequence[str],
) -> Iterator[Ended]:
    """Runs the trainings, those that start from the network of generated cases last, after that one."""
    run = partial(_run, processes=processes, gpus=visible_gpus() if device == "cuda" else [], deadline=deadline)
    yield from run([training for training in left if training.init is None])
    started = [training for training in left if training.init is not None]
    if started and time.monotonic() < deadline:
        first = pretraining(generated_store(out / "generated", store.data_config), out / "runs", settings)
        for _, seconds, error in run([first]):
            logger.info(f"{first.name}: {seconds:.1f} s {error}")
        if progress_of(first.run)[1]:
            yield from run(started)


def _run(trainings: Sequence[Training], processes: int, gpus: Sequence[str], deadline: float) -> Iterator[Ended]:
    """Runs `processes` trainings at once until the deadline, which ends those that still run with a checkpoint."""
    finished = [training for training in trainings if progress_of(training.run)[1]]
    yield from ((training, 0.0, "") for training in finished)
    jobs = {Job(one.name, one.arguments, one.run.with_suffix(".log")): one for one in trainings if one not in finished}
    began = dict.fromkeys(jobs, time.monotonic())
    outcomes = run_jobs(
        list(jobs),
        processes,
        gpus,
        started=lambda job: began.update({job: time.monotonic()}),
        stop=lambda: time.monotonic() > deadline,
    )
    for outcome in outcomes:
        if outcome.code == 0 or time.monotonic() < deadline:
            error = outcome.last_line if outcome.code else ""
            yield jobs[outcome.job], time.monotonic() - began[outcome.job], error


def _judge(training: Training, trainings: Sequence[Training], whole: Store, device: str) -> tuple[list[Json], str]:
    """Rows of a training, of its snapshots, and of the fold's ensemble if its last member is finished with it;
    or the error.
    """
    arm, folder = training.arm, training.run.parent
    paths = {(training.network, training.seed, "single"): training.run}
    if (training.run / SNAPSHOTS).is_dir():
        paths[training.network, training.seed, "snapshots"] = training.run / SNAPSHOTS
    members = [one.run for one in trainings if one.run.parent == folder]
    if arm.has_ensembles and all(progress_of(run)[1] for run in members):
        paths["all", -1, "ensemble"] = folder
    store, rows = open_store(training.store, source=whole.source_root), []
    try:
        for (network, seed, kind), path in paths.items():
            model = load_model(path, device=device)
            assert not set(store.split(0)[1]) & set(model.training_cases), f"{path}: was trained on what is judged"
            about = {"arm": arm.name, "kind": kind, "network": network, "seed": seed, "fold": training.fold}
            rows += judge(about, store, 0, confusion_of(model))
    except (InputError, RunError, RuntimeError) as error:
        return [], f"{type(error).__name__}: {error}"
    return rows, ""


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument("store", type=Path, help="prepared with --config chaos-cpu")
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", type=Path, help="the store's source files, if they moved")
    parser.add_argument("--minutes", type=float, default=4, help="for everything, 4 by default")
    parser.add_argument("--processes", type=int, default=8, help="trainings at once, 8 by default")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each network on each fold, 2 by default")
    names = "; ".join(arm.name for arm in ARMS)
    parser.add_argument("--arms", type=chosen_arms, default=ARMS, help=f"names, separated by semicolons, of: {names}")
    add_settings(parser, "of all trainings, over those of the arms")
    options = vars(parser.parse_args())
    with running(sys.stdout):
        store = open_store(options.pop("store"), source=options.pop("source"))
        results = better(store, options.pop("out"), **options)
    print(table(results))


def chosen_arms(names: str) -> list[Arm]:
    wanted = [name.strip() for name in names.split(";")]
    if unknown := set(wanted) - {arm.name for arm in ARMS}:
        raise argparse.ArgumentTypeError(f"there is no arm {min(unknown)!r}")
    return [arm for arm in ARMS if arm.name in wanted]


if __name__ == "__main__":
    main()
