"""results.json, results.md, plots/ and, for the report, cases/ of a cross-validation."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from attunet.benchmarks.crossvalidation.held_out import HeldOut, progress_of
from attunet.benchmarks.crossvalidation.jobs import predicting_device
from attunet.benchmarks.crossvalidation.plan import Key, PlannedRun
from attunet.benchmarks.crossvalidation.results_table import markdown
from attunet.benchmarks.crossvalidation.table import Method, compare_methods, method_row, pairs_to_compare
from attunet.benchmarks.crossvalidation.time_to_accuracy import time_row
from attunet.benchmarks.evaluation.saved_cases import (
    ATTENTION,
    ATTENTION_CASES,
    FOLDER,
    limit_images,
    save_attention,
    save_case,
    worst_first,
)
from attunet.classes import IGNORE_LABEL
from attunet.errors import InputError, RunError
from attunet.evaluate_case import evaluate_case, read_labelled_case
from attunet.metrics.aggregate import nan_to_null
from attunet.metrics.results import CrossvalidationResults, WorstOrgan
from attunet.plots.folds import draw_cases, draw_differences, draw_time_to_accuracy
from attunet.plots.organ_slices import draw_organ_slices
from attunet.plots.view import view_of
from attunet.runs.load_run import load_run
from attunet.runs.run_folder import read_metrics
from attunet.runs.run_model import open_run, run_model
from attunet.store import Store
from attunet.system.atomic_files import write_text
from attunet.system.environment import environment
from attunet.system.outputs import RESULTS, mark_finished
from attunet.system.plain_text import file_names

logger = logging.getLogger(__name__)

SCHEMA = 4


def results_of(
    store: Store,
    plan: Sequence[PlannedRun],
    scored: Mapping[Key, HeldOut | None],
    methods: Sequence[Method],
    commands: list[str],
) -> CrossvalidationResults:
    """The content of results.json. scored: of every planned run, None where it has not finished; methods: made of
    these; commands: that made the store and the table.

    Example:
        >>> results_of(store, plan, scored, methods_of(scored, postprocessings), [])["num_runs"]  # doctest: +SKIP
    """
    patients = {case.name: case.patient for case in store.cases}
    folds = {fold: store.split(fold)[1] for fold in sorted({run.fold for run in plan})}
    results: CrossvalidationResults = {
        "schema": SCHEMA,
        "environment": environment(),
        "store": {
            "name": store.name,
            "unit": store.spec.unit,
            "classes": store.classes.to_json(),
            "folds": {str(fold): cases for fold, cases in folds.items()},
            "num_patients": len({patients[case] for cases in folds.values() for case in cases}),
        },
        "seeds": sorted({run.seed for run in plan}),
        "recipes": {run.recipe: run.config.to_json() for run in reversed(plan)},
        "num_runs": len(plan),
        "missing": [{"run": run.name, "step": progress_of(run.path)[0]} for run in plan if scored[run.key] is None],
        "commands": commands,
        "methods": [
            method_row(method, patients, time_row([read_metrics(held.run) for held in method.runs.values()]))
            for method in methods
        ],
        "comparisons": [compare_methods(a, b, patients) for a, b in pairs_to_compare(methods)],
    }
    return nan_to_null(results)


def write_results(out: Path, results: CrossvalidationResults, methods: Sequence[Method], store: Store) -> None:
    """Draws the worst organs, notes where their pictures are, and writes everything.
    methods: in the order of the results.
    """
    (out / "plots").mkdir(exist_ok=True)
    files = file_names(f"{method.recipe}={method.model}" for method in methods)
    for method, row in zip(methods, results["methods"], strict=True):
        worst = row["worst_organ"]
        if row["configured"] and worst:
            place = f"plots/worst_{files[f'{method.recipe}={method.model}']}.png"
            try:
                is_drawn = _draw_worst_organ(out / place, method, worst, store)
            except (InputError, RunError) as error:  # the table does not need the source files
                logger.warning(f"no picture of the worst organ: {error}")
                is_drawn = False
            worst["picture"] = place if is_drawn else None
    write_text(out / "results.md", markdown(results))
    _draw(out / "plots", results)
    write_text(out / RESULTS, json.dumps(results, indent=1, allow_nan=False) + "\n")  # last: a folder with it is whole
    mark_finished(out)
    logger.info(f"written to {out}: results.json, results.md, plots/")


def _draw_worst_organ(path: Path, method: Method, worst: WorstOrgan, store: Store) -> bool:
    """Draws the organ with the lowest Dice, which a mean hides, slice by slice, from a new prediction of the same run.

    False if neither the prediction nor the reference has it: a device may round differently from the one that was
    scored.
    """
    run = load_run(method.runs[worst["seed"], worst["fold"]].run)
    case = read_labelled_case(store, worst["case"])
    prediction = evaluate_case(run_model(run, predicting_device()), case).finished(method.postprocessing).copy()
    prediction[case.truth == IGNORE_LABEL] = 0
    view = view_of(case.volume, slice_axis=store.spec.slice_axis, oriented=store.spec.orientation is not None)
    index = store.classes.names.index(worst["class"])
    true, predicted = case.truth == index, prediction == index
    if not (true | predicted).any():
        return False
    title = f"{worst['class']} of {worst['case']}, seed {worst['seed']}"
    draw_organ_slices(path, case.volume, view, true, predicted, title=title)
    return True


def _draw(folder: Path, results: CrossvalidationResults) -> None:
    scored = [row for row in results["methods"] if row["num_runs"]]
    draw_cases(folder / "cases.png", scored)
    if results["comparisons"]:
        draw_differences(folder / "differences.png", results["comparisons"])
    curves = {row["name"]: row["time_to_accuracy"] for row in scored if row["configured"]}
    if any(curve["minutes"] for curve in curves.values()):
        draw_time_to_accuracy(folder / "time_to_accuracy.png", curves)


def keep_cases(out: Path, store: Store, scored: Mapping[Key, HeldOut | None]) -> None:
    """Writes `out/cases/` and, for the worst cases, attention maps in the folders of the runs with the lowest seed.

    Without the source files there are none, which is logged: the scores do not need them.
    """
    held = {key: run for key, run in scored.items() if run is not None}
    dice: dict[str, list[list[float]]] = {}
    for run in held.values():
        for case, scores in run.scores[store.preprocessing.postprocessing.words].items():
            dice.setdefault(case, []).append(list(scores["dice"].values()))
    ordered = worst_first(dice)
    first_seed = min(seed for _, _, seed, _ in held)
    try:
        for name in dice:
            save_case(out / FOLDER / name, read_labelled_case(store, name), store.spec)
        limit_images(out / FOLDER, ordered)
        for (_, _, seed, fold), run in held.items():
            if seed == first_seed:
                held_out = store.split(fold)[1]
                worst = [name for name in ordered[:ATTENTION_CASES] if name in held_out]
                _keep_attention(run.run, store, worst)
    except InputError as error:
        logger.warning(f"no images for the report: {error}")


def _keep_attention(path: Path, store: Store, cases: list[str]) -> None:
    if not cases:
        return
    model = open_run(path, predicting_device())
    for case in cases if model.num_gates else ():
        volume, _ = store.read_source(case)
        save_attention(path / ATTENTION / f"{case}.npz", model, volume)
