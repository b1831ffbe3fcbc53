"""results.json, results.md and plots/ of a cross-validation."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from attunet.benchmarks.crossvalidation.held_out import HeldOut, progress_of
from attunet.benchmarks.crossvalidation.plan import PlannedRun
from attunet.benchmarks.crossvalidation.results_table import markdown
from attunet.benchmarks.crossvalidation.table import Method, compare_methods, method_row, pairs_to_compare
from attunet.benchmarks.crossvalidation.time_to_accuracy import time_row
from attunet.benchmarks.crossvalidation.worst_organ import draw_worst_organ, worst_organ
from attunet.errors import InputError, RunError
from attunet.metrics.aggregate import nan_to_null
from attunet.metrics.results import CrossvalidationResults, WorstOrgan
from attunet.plots.figure import file_name
from attunet.plots.folds import draw_cases, draw_differences, draw_time_to_accuracy
from attunet.runs.run_folder import read_metrics
from attunet.store import Store
from attunet.system.atomic_files import write_text
from attunet.system.environment import environment

logger = logging.getLogger(__name__)

SCHEMA = 3


def results_of(
    store: Store,
    plan: Sequence[PlannedRun],
    scored: Mapping[tuple[str, str, int, int], HeldOut | None],
    methods: Sequence[Method],
    commands: list[str],
) -> CrossvalidationResults:
    """The content of results.json.

    Args:
        store: the prepared data set.
        plan: all trainings.
        scored: recipe, model, seed and fold -> scores, None where no run has finished.
        methods: made of `scored`.
        commands: that made the store and the table.

    Example:
        >>> results_of(store, plan, scored, methods_of(scored, postprocessings), [])["num_runs"]  # doctest: +SKIP
    """
    patients = {case.name: case.patient for case in store.cases}
    several = len({method.recipe for method in methods}) > 1
    labels = {id(method): method.label(several) for method in methods}
    logs = {key: read_metrics(held.run) for key, held in scored.items() if held is not None}
    rows = []
    for method in methods:
        histories = [
            rows for (recipe, model, _, _), rows in logs.items() if (recipe, model) == (method.recipe, method.model)
        ]
        rows.append(method_row(method, labels[id(method)], patients, worst_organ(method), time_row(histories)))
    unfinished = [run for run in plan if scored[run.key] is None]
    results: CrossvalidationResults = {
        "schema": SCHEMA,
        "environment": environment(),
        "store": {
            "name": store.name,
            "classes": store.classes.to_json(),
            "folds": {str(fold): store.split(fold)[1] for fold in sorted({run.fold for run in plan})},
            "num_patients": len(
                {patients[case] for fold in {run.fold for run in plan} for case in store.split(fold)[1]}
            ),
        },
        "seeds": sorted({run.seed for run in plan}),
        "recipes": {run.recipe: run.config.to_json() for run in reversed(plan)},
        "num_runs": len(plan),
        "missing": [{"run": run.name, "step": progress_of(run.path)[0]} for run in unfinished],
        "commands": commands,
        "methods": rows,
        "comparisons": [
            compare_methods(a, b, (labels[id(a)], labels[id(b)]), patients) for a, b in pairs_to_compare(methods)
        ],
    }
    return nan_to_null(results)


def write_results(
    out: Path,
    results: CrossvalidationResults,
    methods: Sequence[Method],
    store: Store,
    *,
    device: str,
    source: Path | None,
) -> None:
    """Draws the worst organs, notes where their pictures are, and writes everything.

    Args:
        out: folder of the results.
        results: of `results_of`.
        methods: in the order of the results.
        store: the prepared data set.
        device: on which PyTorch predicts the worst organs, `cpu` or `cuda`.
        source: where the store's source files are now, if they moved.

    Example:
        >>> write_results(out, results, methods, store, device="cpu", source=None)  # doctest: +SKIP
    """
    for method, row in zip(methods, results["methods"], strict=True):
        if row["configured"] and row["worst_organ"]:
            row["worst_organ"]["picture"] = _picture_of_the_worst(
                out, method, row["worst_organ"], store, device, source
            )
    write_text(out / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    write_text(out / "results.md", markdown(results))
    _draw(out / "plots", results)
    logger.info(f"written to {out}: results.json, results.md, plots/")


def _picture_of_the_worst(
    out: Path, method: Method, worst: WorstOrgan, store: Store, device: str, source: Path | None
) -> str | None:
    """Path of the plot within `out`; None with a warning if the source files are missing,
    which the table does not need.
    """
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
