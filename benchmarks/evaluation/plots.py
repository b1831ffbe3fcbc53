"""Plots of an evaluation, in its folder `plots/`; none without matplotlib."""

import importlib.util
import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from attunet.benchmarks.evaluation.models import EvaluatedModel
from attunet.benchmarks.evaluation.results_table import model_label
from attunet.benchmarks.evaluation.saved_cases import worst_first
from attunet.evaluate_case import LabelledCase, read_labelled_case
from attunet.metrics.aggregate import mean
from attunet.metrics.overlap import confusion, dice_from_confusion
from attunet.metrics.results import EvaluatedRow, EvaluationResults
from attunet.store import Store
from attunet.system.plain_text import file_names
from attunet.volumes.slices import VolumeSlices

logger = logging.getLogger(__name__)

MAX_CASES = 4
SAME_OUTLINE = 0.995  # mean Dice above which the outlines of two label maps look alike


@dataclass
class Predictions:
    """Class indices uint8 `(X, Y, Z)` by model and case, compressed: label maps shrink to about a hundredth."""

    _kept: dict[tuple[str, str], tuple[tuple[int, ...], bytes]] = field(default_factory=dict)

    def add(self, model: str, case: str, indices: np.ndarray) -> None:
        self._kept[model, case] = indices.shape, zlib.compress(indices.tobytes(), level=1)

    def get(self, model: str, case: str) -> np.ndarray:
        shape, data = self._kept[model, case]
        return np.frombuffer(zlib.decompress(data), dtype=np.uint8).reshape(shape)


def draw_evaluation(
    folder: Path, results: EvaluationResults, models: Sequence[EvaluatedModel], predictions: Predictions, store: Store
) -> None:
    """Draws speed and accuracy of all models, a confusion matrix for each, outlines and attention maps of some cases,
    training curves.

    Example:
        >>> draw_evaluation(out / "plots", results, models, predictions, store)  # doctest: +SKIP
    """
    if importlib.util.find_spec("matplotlib") is None:
        logger.info("no plots: matplotlib is not installed (it is in the extra 'train')")
        return
    _draw_figures(folder, {model_label(row): row for row in results["models"]}, store)
    _draw_curves(folder, models)
    for number, (case, name) in enumerate(file_names(_cases_to_show(results)).items()):
        labelled = read_labelled_case(store, case)
        _draw_outlines(folder / f"outlines_{name}.png", labelled, models, predictions, store)
        if number == 0:
            _draw_attention(folder, labelled, models, predictions)


def _draw_figures(folder: Path, rows: dict[str, EvaluatedRow], store: Store) -> None:
    from attunet.plots.confusion import draw_confusion
    from attunet.plots.speed import draw_dice_against_latency, draw_latency_against_batch, draw_volume_time

    if any(row["dice"]["mean"] is not None for row in rows.values()):
        draw_dice_against_latency(folder / "dice_against_latency.png", rows)
    draw_latency_against_batch(folder / "latency_against_batch.png", rows)
    draw_volume_time(folder / "volume_time.png", rows)
    files = file_names(rows)
    for label, row in rows.items():
        counts = np.array(row["confusion"])
        if counts.any():
            draw_confusion(folder / f"confusion_{files[label]}.png", counts, store.classes, title=label)


def _draw_curves(folder: Path, models: Sequence[EvaluatedModel]) -> None:
    runs = {one.name: one.path for one in models if one.backend == "pytorch" and (one.path / "metrics.jsonl").is_file()}
    if runs:
        from attunet.plots.curves import draw_curves
        from attunet.runs.run_folder import read_metrics

        draw_curves(folder / "training.png", {name: read_metrics(path) for name, path in runs.items()})


def _cases_to_show(results: EvaluationResults) -> list[str]:
    """All cases if they are few, otherwise the first model's two worst ones, the median and the best."""
    dice = results["models"][0]["dice"]["per_case"]
    ordered = worst_first({case: [np.array(list(scores.values()), dtype=np.float64)] for case, scores in dice.items()})
    if len(ordered) <= MAX_CASES:
        return ordered
    return [*ordered[:2], ordered[len(ordered) // 2], ordered[-1]]


def _draw_outlines(
    path: Path, case: LabelledCase, models: Sequence[EvaluatedModel], predictions: Predictions, store: Store
) -> None:
    """Draws the label maps of one case; a model whose outlines would cover another's is left out."""
    from attunet.plots.outlines import draw_outlines
    from attunet.plots.view import view_of

    view = view_of(case.volume, slice_axis=store.spec.slice_axis, oriented=store.spec.orientation is not None)
    outlines: dict[str, np.ndarray] = {}
    for one in models:
        indices = predictions.get(one.label, case.name)
        counts = [confusion(indices, other, case.num_classes) for other in outlines.values()]
        if not any(mean(dice_from_confusion(c)[1:]) > SAME_OUTLINE for c in counts):
            outlines[one.name if one.name not in outlines else one.label] = indices
    draw_outlines(path, case.volume, view, outlines, store.classes, truth=case.truth, title=case.name)


def _draw_attention(
    folder: Path, case: LabelledCase, models: Sequence[EvaluatedModel], predictions: Predictions
) -> None:
    """Draws the attention maps of every model that has gates, at the slice of the case with the most classes
    predicted.
    """
    from attunet.plots.attention import draw_attention
    from attunet.plots.view import fullest_slice, view_of

    files = file_names(one.label for one in models)
    for one in models:
        model, spec = one.model, one.model.spec
        if not model.num_gates:
            continue
        prepared = VolumeSlices(case.volume, spec)
        view = view_of(case.volume, slice_axis=spec.slice_axis, oriented=spec.orientation is not None)
        index = fullest_slice(view.slices(predictions.get(one.label, case.name)))
        slices = prepared.batch(index, index + 1)
        # Prepared slices have the view's order, except sagittal and coronal ones, which have the feet at the top.
        up = slice(None, None, -1 if view.sides and spec.slice_axis != 2 else 1)
        draw_attention(
            folder / f"attention_{files[one.label]}.png",
            prepared[index : index + 1][0, 0, up],
            [values[0, up] for values in model.attention(slices)],
            model.classes,
            labels=model.logits(slices)[0].argmax(axis=0)[up],
            sides=view.sides,
            title=f"{one.name}, {case.name}, slice {index + 1} of {len(prepared)}",
        )
