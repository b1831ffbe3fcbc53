"""`attunet crossvalidate`: recipes × networks × seeds × folds, trained in parallel and scored on their held-out cases,
in one table.
"""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from attunet.benchmarks.crossvalidation.held_out import check_belongs, progress_of, score_run, scoring_seconds
from attunet.benchmarks.crossvalidation.jobs import Job, run_jobs, visible_gpus
from attunet.benchmarks.crossvalidation.plan import Grid, PlannedRun, minutes_per_run, start_from
from attunet.benchmarks.crossvalidation.results import keep_cases, results_of, write_results
from attunet.benchmarks.crossvalidation.table import methods_of
from attunet.benchmarks.evaluation.commands import preparing_command
from attunet.benchmarks.evaluation.saved_cases import require_own_cases
from attunet.errors import InputError, RunError
from attunet.metrics.results import CrossvalidationResults
from attunet.privacy.pseudonyms import claim, pseudonyms
from attunet.runs.load_run import load_run
from attunet.runs.run_folder import LOCK
from attunet.store import Store, open_store
from attunet.system.lock import writing
from attunet.system.outputs import remove_results, require_own_folder
from attunet.system.stop_signals import Stopped, StopSignals
from attunet.volumes.spec import LARGEST, UNTOUCHED

logger = logging.getLogger(__name__)


class TrainingsFailed(RunError):
    """Some trainings failed; `results` are those of the others, which are written."""

    def __init__(self, text: str, results: CrossvalidationResults) -> None:
        super().__init__(text)
        self.results = results


def crossvalidate(
    store_path: str | Path,
    out: str | Path,
    *,
    models: Sequence[str],
    config_names: Sequence[str] = (),
    settings: Sequence[str] = (),
    num_seeds: int = 1,
    folds: Sequence[int] | None = None,
    jobs: int | None = None,
    minutes: float | None = None,
    began: float | None = None,
    init: str | Path | None = None,
    init_classes: str = "",
    train: bool = True,
    every_postprocessing: bool = False,
    source: str | Path | None = None,
    pseudonymise: str | Path | None = None,
) -> CrossvalidationResults:
    """Trains the unfinished runs, scores every finished one, writes results.json, results.md and plots/, and returns
    the content of results.json.

    Args:
        out: folder of the results; a run lies in `out/RECIPE/MODEL/seed-S/fold-K`. Finished runs are not trained again.
        config_names: presets or config files, each a recipe; the defaults if empty.
        settings: `section.field=value` for every recipe.
        num_seeds: trainings per fold, with the seeds from 0.
        jobs: parallel trainings, one per GPU by default.
        minutes: time for all trainings and the table, in place of epochs; each run gets an equal share.
        began: start of `minutes`, as a value of `time.monotonic()`; the time of the call by default.
        init: a run, a checkpoint or a .safetensors file whose weights every training starts from.
        init_classes: `NEW=OLD,...`, classes that `init` calls by another name.
        train: False scores the finished runs only.
        every_postprocessing: scores label maps with the store's post-processing, with the largest components and
            without post-processing.
        source: where the store's source files are now, if they moved.
        pseudonymise: a CSV file outside of `out` with the names of cases and patients; runs and results have their
            numbers.

    Raises:
        InputError: before anything is trained, for invalid arguments, for a run that does not belong in its folder, for
            an `out` begun with another table of names, and while another process writes it.
        Stopped: after a signal.
        TrainingsFailed: if some trainings failed; the results of the others are written. RunError if all did.

    Example:
        >>> crossvalidate("store", "out", models=["unet", "attention_unet"], config_names=["chaos"])  # doctest: +SKIP
    """
    began = time.monotonic() if began is None else began
    store_path, out = Path(store_path), Path(out)
    grid = Grid(models, config_names, settings, num_seeds, folds, start_from(init, init_classes))
    with pseudonyms(pseudonymise, [out]) as names, writing(out, "cross-validation") as lock:
        store = open_store(store_path, names, source=source)
        _check_place(out, train=train)
        plan = grid.plan(store, out)
        if minutes is not None:
            scoring = scoring_seconds(store, [run.fold for run in plan], 3 if every_postprocessing else 1) / 60
            spent, at_a_time = (time.monotonic() - began) / 60, jobs or max(1, len(visible_gpus()))
            grid = grid.in_minutes(minutes_per_run(minutes, len(plan), at_a_time, scoring=scoring, spent=spent))
            plan = grid.plan(store, out)
        (names.claim if names else claim)(out)
        _check_begun(plan, store)
        numbered = ("--pseudonymise", str(pseudonymise)) if names else ()
        failed = _train(plan, (str(store_path), *numbered), jobs) if train else ""
        results = _score(store, out, grid, plan, every_postprocessing, failed, lock.check)
        if failed:
            raise TrainingsFailed(f"{out}: {failed}", results)
    return results


def _check_place(out: Path, *, train: bool) -> None:
    """Raises InputError for a folder with another product or a user's files, and for none where nothing is trained."""
    require_own_folder(out, "a cross-validation")
    require_own_cases(out)
    if not train and not out.exists():
        raise InputError(f"{out}: no such folder; --no-train needs finished trainings")


def _check_begun(plan: Sequence[PlannedRun], store: Store) -> None:
    """Raises InputError for a run of an earlier call that does not belong in its place."""
    for run in plan:
        if progress_of(run.path)[0]:
            check_belongs(load_run(run.path), store, run)


def _train(plan: Sequence[PlannedRun], store: Sequence[str], count: int | None) -> str:
    """Trains the unfinished runs and returns a clause about the failed ones. Raises Stopped after a signal. `store` are
    the arguments of `attunet train` that name the store and its table of names.
    """
    # One that was killed after its last checkpoint has left its lock: called again, it draws its curves.
    waiting = [run for run in plan if not progress_of(run.path)[1] or (run.path / LOCK).exists()]
    logger.info(f"{len(plan)} trainings, {len(plan) - len(waiting)} of them finished already")
    if not waiting:
        return ""
    gpus, failures = visible_gpus(), []
    jobs = []
    for run in waiting:
        arguments = (*store, str(run.path), "--fold", str(run.fold), *run.arguments, "--resume=auto")
        jobs.append(Job(run.name, arguments, run.path.with_suffix(".log")))
    with StopSignals() as stop:
        outcomes = run_jobs(
            jobs,
            count or max(1, len(gpus)),
            gpus,
            started=lambda job: logger.info(f"training {job.name}"),
            stop=lambda: stop.received,
        )
        for ended, outcome in enumerate(outcomes, start=1):
            failed = outcome.code and not stop.received
            if failed:
                failures.append(f"{outcome.job.name}: {outcome.last_line}")
            logger.info(f"[{ended}/{len(jobs)}] {outcome.job.name}: {'failed: ' if failed else ''}{outcome.last_line}")
        if stop.received:
            logger.info("stopped; the same call continues")
            raise Stopped(stop.received)
    return f"{len(failures)} of {len(plan)} trainings failed; {failures[0]}" if failures else ""


def _score(
    store: Store,
    out: Path,
    grid: Grid,
    plan: Sequence[PlannedRun],
    every_postprocessing: bool,
    failed: str,
    check: Callable[[], object],
) -> CrossvalidationResults:
    """Scores the finished runs and writes everything. failed: a clause about failed trainings; check: of the lock."""
    own = store.preprocessing.postprocessing
    postprocessings = [own, *(other for other in (LARGEST, UNTOUCHED) if every_postprocessing and other != own)]
    if not any(progress_of(run.path)[1] for run in plan):
        if failed:
            raise RunError(f"{out}: {failed}")
        raise InputError(f"{out}: none of {len(plan)} trainings is finished")

    def before() -> None:  # scoring replaces the label maps that the older table is of
        check()
        remove_results(out)

    scored = {run.key: score_run(run, store, postprocessings, before=before) for run in plan}
    before()
    keep_cases(out, store, scored)
    methods = methods_of(scored, postprocessings)
    commands = [preparing_command(store), grid.command(store, out, every_postprocessing)]
    results = results_of(store, plan, scored, methods, commands)
    check()
    write_results(out, results, methods, store)
    return results
