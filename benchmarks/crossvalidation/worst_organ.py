"""Plot of the organ with the lowest Dice, which a mean hides."""

import math
from pathlib import Path

from attunet.benchmarks.crossvalidation.table import PRIMARY, Method
from attunet.classes import IGNORE_LABEL
from attunet.evaluate_case import evaluate_case, read_labelled_case
from attunet.metrics.results import WorstOrgan
from attunet.plots.organ_slices import draw_organ_slices
from attunet.plots.view import view_of
from attunet.runs.load_run import load_run
from attunet.runs.run_model import run_model
from attunet.store import Store


def worst_organ(method: Method) -> WorstOrgan | None:
    """Lowest Dice of one class in one case by one run: seed, fold, case, class and dice; None without scores."""
    scores: list[WorstOrgan] = [
        {"seed": seed, "fold": fold, "case": case, "class": name, "dice": value}
        for (seed, fold), run in sorted(method.runs.items())
        for case, scores in run.scores[method.postprocessing.words].items()
        for name, value in scores[PRIMARY].items()
        if not math.isnan(value)
    ]
    return min(scores, key=lambda one: one["dice"], default=None)


def draw_worst_organ(
    path: Path, method: Method, worst: WorstOrgan, store: Store, *, device: str, source: Path | None
) -> Path | None:
    """Draws the organ that `worst_organ` returned, slice by slice, from a new prediction of the same run.

    Args:
        worst: result of `worst_organ`.
        device: on which PyTorch predicts, `cpu` or `cuda`.
        source: where the store's source files are now, if they moved.

    Returns:
        The plot's path; None if neither the prediction nor the reference has the class: a device may round differently
        from the one that was scored.

    Raises:
        InputError: without the source files.

    Example:
        >>> worst = worst_organ(method)  # doctest: +SKIP
        >>> draw_worst_organ(out / "worst.png", method, worst, store, device="cpu", source=None)  # doctest: +SKIP
    """
    run = load_run(method.runs[worst["seed"], worst["fold"]].run)
    case = read_labelled_case(store, worst["case"], source)
    prediction = evaluate_case(run_model(run, device), case).finished(method.postprocessing).copy()
    prediction[case.truth == IGNORE_LABEL] = 0
    view = view_of(case.volume, slice_axis=store.spec.slice_axis, oriented=store.spec.orientation is not None)
    index = [*store.classes.foreground].index(worst["class"]) + 1
    true, predicted = case.truth == index, prediction == index
    if not (true | predicted).any():
        return None
    title = f"{worst['class']} of {worst['case']}, seed {worst['seed']}"
    return draw_organ_slices(path, case.volume, view, true, predicted, title=title)
