"""The one organ that a network segments worst, drawn: what a mean cannot tell."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attunet.benchmarks.crossvalidation.table import PRIMARY, Arm
from attunet.classes import IGNORE_LABEL
from attunet.models.torch_network import TorchNetwork
from attunet.plots.organ_slices import draw_organ_slices
from attunet.plots.view import view_of
from attunet.runs.load_run import load_run
from attunet.store import Store
from attunet.volumes.predict import predict_volume


def worst_organ(arm: Arm) -> dict[str, Any] | None:
    """The lowest Dice of one class in one case by one network: seed, fold, case, class and dice; None where nothing is scored."""
    found: list[dict[str, Any]] = [
        {"seed": seed, "fold": fold, "case": case, "class": name, "dice": value}
        for (seed, fold), run in sorted(arm.runs.items())
        for case, scores in run.scores[arm.way.words].items()
        for name, value in scores[PRIMARY].items()
        if not math.isnan(value)
    ]
    return min(found, key=lambda one: one["dice"], default=None)


def draw_worst_organ(path: Path, arm: Arm, worst: Mapping[str, Any], store: Store, *, device: str, source: Path | None) -> Path | None:
    """The organ that `worst_organ` found, in a new prediction of the same network, slice by slice.

    None where that has nothing to show any more: a device rounds differently from the one that was scored. Raises InputError without
    the source files.
    """
    run = load_run(arm.runs[worst["seed"], worst["fold"]].run)
    volume, truth = store.read_source(worst["case"], source)
    assert truth is not None, worst["case"]
    prediction = predict_volume(TorchNetwork(run.network, device), volume, run.spec, postprocessing=arm.way)
    prediction[truth == IGNORE_LABEL] = 0
    view = view_of(volume, slice_axis=store.spec.slice_axis, oriented=store.spec.orientation is not None)
    index = [*store.classes.foreground].index(worst["class"]) + 1
    true, found = truth == index, prediction == index
    if not (true | found).any():
        return None
    title = f"{worst['class']} of {worst['case']}, seed {worst['seed']}"
    return draw_organ_slices(path, volume, view, true, found, title=title)
