"""`attunet crossvalidate`: recipes × networks × seeds × folds, trained in parallel and scored on their held-out cases, in one table."""

import dataclasses
import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attunet.benchmarks.crossvalidation.held_out import HeldOut, check_belongs, progress_of, score_run
from attunet.benchmarks.crossvalidation.jobs import Job, Jobs, Outcome, visible_gpus
from attunet.benchmarks.crossvalidation.kept_cases import keep_cases
from attunet.benchmarks.crossvalidation.results_table import markdown
from attunet.benchmarks.crossvalidation.table import Method, compare_methods, method_row, methods_of, pairs_to_compare
from attunet.benchmarks.crossvalidation.time_to_accuracy import time_row
from attunet.benchmarks.crossvalidation.worst_organ import draw_worst_organ, worst_organ
from attunet.benchmarks.evaluation.details import command, preparing_command
from attunet.benchmarks.evaluation.evaluate import make_folder
from attunet.config import Config
from attunet.errors import InputError, RunError
from attunet.metrics.aggregate import nan_to_null
from attunet.metrics.results import CrossvalidationResults, WorstOrgan
from attunet.plots.figure import file_name
from attunet.plots.folds import draw_cases, draw_differences, draw_time_to_accuracy
from attunet.presets import preset_names, training_config
from attunet.runs.load_run import load_run
from attunet.runs.run_folder import read_metrics
from attunet.store import Store, open_store
from attunet.system.atomic_files import write_text
from attunet.system.environment import environment
from attunet.training.processes.signals import Stopped, StopSignals
from attunet.volumes.spec import LARGEST, UNTOUCHED

logger = logging.getLogger(__name__)

SCORING_SHARE = 0.08
SCHEMA = 3


class TrainingsFailed(RunError):
    """Some trainings failed; `results` are those of the others, which are written."""

    def __init__(self, text: str, results: CrossvalidationResults) -> None:
        super().__init__(text)
        self.results = results


@dataclass(frozen=True)
class PlannedRun:
    """One training. arguments: of `attunet train`, besides store, folder and fold."""

    recipe: str
    model: str
    seed: int
    fold: int
    path: Path
    config: Config
    arguments: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str, int, int]:
        return self.recipe, self.model, self.seed, self.fold

    @property
    def name(self) -> str:
        return f"{self.recipe}/{self.model}/seed-{self.seed}/fold-{self.fold}"


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
    train: bool = True,
    every_postprocessing: bool = False,
    source: str | Path | None = None,
) -> CrossvalidationResults:
    """Trains the unfinished runs, scores every finished one, and writes results.json, results.md and plots/.

    Args:
        out: folder of the results; a run lies in `out/RECIPE/MODEL/seed-S/fold-K`. Finished runs are not trained again.
        config_names: presets or config files, each a recipe; the defaults if empty.
        settings: `section.field=value` for every recipe.
        num_seeds: trainings per fold, with the seeds from 0.
        folds: all by default.
        jobs: parallel trainings, one per GPU by default.
        minutes: time for all trainings together, in place of epochs; each run gets an equal share.
        train: False scores the finished runs only.
        every_postprocessing: scores label maps with the store's post-processing, with the largest components and without post-processing.
        source: where the store's source files are now, if they moved.

    Returns:
        The content of results.json.

    Raises:
        InputError: before anything is trained, for invalid arguments and for a run that does not belong in its folder.
        Stopped: after a signal.
        TrainingsFailed: if some trainings failed; the results of the others are written.
        RunError: if every one failed.

    Example:
        >>> crossvalidate("store", "comparison", models=["unet", "attention_unet"], config_names=["chaos"])  # doctest: +SKIP
    """
    store_path, out, source = Path(store_path), Path(out), Path(source) if source is not None else None
    store = open_store(store_path)
    _check_folder(out, store_path, train)
    plan = make_plan(store, out, models, config_names, settings, num_seeds, folds)
    if minutes is not None:
        settings = (*settings, f"run.minutes={minutes_per_run(minutes, len(plan), jobs or max(1, len(visible_gpus())))}")
        plan = make_plan(store, out, models, config_names, settings, num_seeds, folds)
    for run in plan:
        if progress_of(run.path)[0]:
            check_belongs(load_run(run.path), store, run.fold, run.config)
    failures = _train(plan, store_path, jobs) if train else []
    device = "cuda" if visible_gpus() else "cpu"
    configured = store.preprocessing.postprocessing
    postprocessings = [
        configured,
        *(postprocessing for postprocessing in (LARGEST, UNTOUCHED) if every_postprocessing and postprocessing != configured),
    ]
    scored: dict[tuple[str, str, int, int], HeldOut | None] = {}
    for run in plan:
        scored[run.key] = score_run(run.path, store, run.fold, run.config, postprocessings=postprocessings, device=device, source=source)
    failed = f"{len(failures)} of {len(plan)} trainings failed; {failures[0].job.name}: {failures[0].last_line}" if failures else ""
    if not any(scored.values()):
        raise RunError(f"{out}: {failed}") if failed else InputError(f"{out}: none of {len(plan)} trainings is finished")
    make_folder(out)
    keep_cases(out, store, scored, device=device, source=source)
    methods = methods_of(scored, postprocessings)
    call = _command(store, out, models, config_names, settings, num_seeds, folds, every_postprocessing)
    results = _results(store, plan, scored, methods, [preparing_command(store), call])
    for method, row in zip(methods, results["methods"], strict=True):
        if row["configured"] and row["worst_organ"]:
            row["worst_organ"]["picture"] = _picture_of_the_worst(out, method, row["worst_organ"], store, device, source)
    write_text(out / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    write_text(out / "results.md", markdown(results))
    _draw(out / "plots", results)
    logger.info(f"written to {out}: results.json, results.md, plots/")
    if failed:
        raise TrainingsFailed(f"{out}: {failed}", results)
    return results


def _command(
    store: Store,
    out: Path,
    models: Sequence[str],
    config_names: Sequence[str],
    settings: Sequence[str],
    num_seeds: int,
    folds: Sequence[int] | None,
    every_postprocessing: bool,
) -> str:
    """The call that makes the same table elsewhere; of files their names alone."""
    words = [word for model in dict.fromkeys(models) for word in ("--model", model)]
    words += [word for name in dict.fromkeys(config_names) for word in ("--config", Path(name).name)]
    words += [word for setting in settings for word in ("--set", setting)]
    words += ["--seeds", str(num_seeds)] if num_seeds > 1 else []
    words += ["--folds", ",".join(map(str, folds))] if folds is not None else []
    words += ["--largest-component"] if every_postprocessing else []
    return command("crossvalidate", store.name, out.resolve().name, *words)


def minutes_per_run(minutes: float, num_runs: int, jobs: int) -> float:
    """The share of one training in the time of the whole table, of which `SCORING_SHARE` is kept for the scores and the pictures."""
    rounds = -(-num_runs // jobs)
    return round((1 - SCORING_SHARE) * minutes / rounds, 3)


def _check_folder(out: Path, store: Path, train: bool) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: must be a folder, or nothing yet")
    if out.exists() and out.samefile(store):
        raise InputError(f"{out}: must be another folder than the store's")
    if not train and not out.exists():
        raise InputError(f"{out}: no such folder; --no-train needs finished trainings")


def make_plan(
    store: Store,
    out: Path,
    models: Sequence[str],
    config_names: Sequence[str],
    settings: Sequence[str],
    num_seeds: int,
    folds: Sequence[int] | None,
) -> list[PlannedRun]:
    """All runs: seed by seed, fold by fold, with recipes and networks innermost, so that early results can be compared."""
    folds = list(range(store.num_folds)) if folds is None else list(dict.fromkeys(folds))
    for fold in folds:
        if not store.split(fold)[0]:
            raise InputError(f"{store.path}: fold {fold} has no labelled training case")
    if any(setting.replace(" ", "").startswith("run.seed=") for setting in settings):
        raise InputError("--set: must not set run.seed, which --seeds counts from 0")
    recipes = _recipes(config_names)
    names = list(dict.fromkeys(models))
    plan = []
    for seed, fold, (recipe, config_name), model in itertools.product(range(num_seeds), folds, recipes.items(), names):
        seeded = (*settings, f"run.seed={seed}")
        arguments = ["--model", model, *(["--config", config_name] if config_name else []), *(x for s in seeded for x in ("--set", s))]
        config = dataclasses.replace(training_config(config_name, seeded, model), data=store.data_config)
        path = out / recipe / model / f"seed-{seed}" / f"fold-{fold}"
        plan.append(PlannedRun(recipe, model, seed, fold, path, config, tuple(arguments)))
    return plan


def _recipes(config_names: Sequence[str]) -> dict[str, str | None]:
    """Recipe name -> value of `--config`; the recipe of a file has the file's name without its ending."""
    if not config_names:
        return {"default": None}
    recipes: dict[str, str | None] = {}
    for name in dict.fromkeys(config_names):
        recipe = name if name in preset_names() else Path(name).stem
        if recipe in recipes:
            raise InputError(f"--config: must have distinct names, got two recipes {recipe!r}; rename the file {name}")
        recipes[recipe] = name
    return recipes


def _train(plan: Sequence[PlannedRun], store: Path, count: int | None) -> list[Outcome]:
    """Trains the unfinished runs and returns the failed ones. Raises Stopped after a signal."""
    waiting = [run for run in plan if not progress_of(run.path)[1]]
    logger.info(f"{len(plan)} trainings, {len(plan) - len(waiting)} of them finished already")
    if not waiting:
        return []
    gpus = visible_gpus()
    jobs = [
        Job(run.name, (str(store), str(run.path), "--fold", str(run.fold), *run.arguments, "--resume=auto"), run.path.with_suffix(".log"))
        for run in waiting
    ]
    failures, ended = [], 0
    with StopSignals() as stop:
        for outcome in Jobs(count or max(1, len(gpus)), gpus).run(
            jobs, started=lambda job: logger.info(f"training {job.name}"), stop=lambda: stop.received
        ):
            ended += 1
            if outcome.code and not stop.received:
                failures.append(outcome)
            failed = "failed: " if outcome.code and not stop.received else ""
            logger.info(f"[{ended}/{len(jobs)}] {outcome.job.name}: {failed}{outcome.last_line}")
        if stop.received:
            logger.info("stopped; the same call continues")
            raise Stopped(stop.received)
    return failures


def _results(
    store: Store,
    plan: Sequence[PlannedRun],
    scored: Mapping[tuple[str, str, int, int], HeldOut | None],
    methods: Sequence[Method],
    commands: list[str],
) -> CrossvalidationResults:
    patients = {case.name: case.patient for case in store.cases}
    several = len({method.recipe for method in methods}) > 1
    labels = {id(method): method.label(several) for method in methods}
    logs = {key: read_metrics(held.run) for key, held in scored.items() if held is not None}
    rows = []
    for method in methods:
        histories = [rows for (recipe, model, _, _), rows in logs.items() if (recipe, model) == (method.recipe, method.model)]
        rows.append(method_row(method, labels[id(method)], patients, worst_organ(method), time_row(histories)))
    unfinished = [run for run in plan if scored[run.key] is None]
    results: CrossvalidationResults = {
        "schema": SCHEMA,
        "environment": environment(),
        "store": {
            "name": store.name,
            "classes": store.classes.to_json(),
            "folds": {str(fold): store.split(fold)[1] for fold in sorted({run.fold for run in plan})},
            "num_patients": len({patients[case] for fold in {run.fold for run in plan} for case in store.split(fold)[1]}),
        },
        "seeds": sorted({run.seed for run in plan}),
        "recipes": {run.recipe: run.config.to_json() for run in reversed(plan)},
        "num_runs": len(plan),
        "missing": [{"run": run.name, "step": progress_of(run.path)[0]} for run in unfinished],
        "commands": commands,
        "methods": rows,
        "comparisons": [compare_methods(a, b, (labels[id(a)], labels[id(b)]), patients) for a, b in pairs_to_compare(methods)],
    }
    return nan_to_null(results)


def _picture_of_the_worst(out: Path, method: Method, worst: WorstOrgan, store: Store, device: str, source: Path | None) -> str | None:
    """Path of the plot within `out`; None with a warning if the source files are missing, which the table does not need."""
    place = f"plots/worst_{file_name(f'{method.recipe}={method.model}')}.png"
    try:
        return place if draw_worst_organ(out / place, method, worst, store, device=device, source=source) else None
    except (InputError, RunError) as error:
        logger.warning(f"no picture of the worst organ: {error}")
        return None


def _draw(folder: Path, results: CrossvalidationResults) -> None:
    scored = [row for row in results["methods"] if row["num_runs"]]
    if not scored:
        return
    draw_cases(folder / "cases.png", scored)
    if results["comparisons"]:
        draw_differences(folder / "differences.png", results["comparisons"])
    curves = {row["name"]: row["time_to_accuracy"] for row in scored if row["configured"]}
    if any(curve["minutes"] for curve in curves.values()):
        draw_time_to_accuracy(folder / "time_to_accuracy.png", curves)
