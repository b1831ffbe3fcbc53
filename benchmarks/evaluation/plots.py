"""The pictures of an evaluation, in its folder `plots/`. Without matplotlib there are none, and that is said."""

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attunet.benchmarks.evaluation.from_file import predict_from_file
from attunet.benchmarks.evaluation.models import Candidate
from attunet.benchmarks.evaluation.results_table import model_label
from attunet.metrics.aggregate import mean_of_defined
from attunet.metrics.overlap import confusion, dice_from_confusion
from attunet.plots.figure import file_name
from attunet.store import Store
from attunet.volumes.slices import gather_context, preprocess

logger = logging.getLogger(__name__)

MAX_CASES = 4
SAME_OUTLINE = 0.995  # mean Dice of two label maps whose outlines cannot be told apart in a picture


def draw_evaluation(
    folder: Path,
    results: dict[str, Any],
    candidates: Sequence[Candidate],
    store: Store,
    *,
    source: Path | None,
) -> None:
    """Speed and accuracy of all models, a confusion matrix for each, outlines and attention maps of some cases, training curves."""
    if importlib.util.find_spec("matplotlib") is None:
        logger.info("no plots: matplotlib is not installed (it is in the extra 'train')")
        return
    rows = {model_label(row): row for row in results["models"]}
    _draw_figures(folder, rows, store)
    _draw_curves(folder, candidates)
    for number, case in enumerate(_cases_to_show(results)):
        predictions = _draw_outlines(folder, case, candidates, store, source)
        if number == 0:
            _draw_attention(folder, case, candidates, predictions, store, source)
    logger.info(f"plots: {folder}")


def _draw_figures(folder: Path, rows: dict[str, Any], store: Store) -> None:
    from attunet.plots.confusion import draw_confusion
    from attunet.plots.speed import draw_dice_against_latency, draw_latency_against_batch, draw_volume_time

    if any(row["dice"]["mean"] is not None for row in rows.values()):
        draw_dice_against_latency(folder / "dice_against_latency.png", rows)
    draw_latency_against_batch(folder / "latency_against_batch.png", rows)
    draw_volume_time(folder / "volume_time.png", rows)
    for label, row in rows.items():
        if np.sum(row["confusion"]):
            draw_confusion(folder / f"confusion_{file_name(label)}.png", np.array(row["confusion"]), store.classes, title=label)


def _draw_curves(folder: Path, candidates: Sequence[Candidate]) -> None:
    runs = {c.name: c.path for c in candidates if c.backend == "pytorch" and (c.path / "metrics.jsonl").is_file()}
    if runs:
        from attunet.plots.curves import draw_curves
        from attunet.runs.run_folder import read_metrics

        draw_curves(folder / "training.png", {name: read_metrics(path) for name, path in runs.items()})


def _cases_to_show(results: dict[str, Any]) -> list[str]:
    """All cases where they are few; or else the two worst of the first model, one in the middle and the best."""
    dice = results["models"][0]["dice"]["per_case"]
    means = {case: np.mean([v or 0.0 for v in scores.values()]) for case, scores in dice.items()}
    ordered = sorted(means, key=lambda case: float(means[case]))
    if len(ordered) <= MAX_CASES:
        return ordered
    return [*ordered[:2], ordered[len(ordered) // 2], ordered[-1]]


def _draw_outlines(folder: Path, name: str, candidates: Sequence[Candidate], store: Store, source: Path | None) -> dict[str, np.ndarray]:
    """Draws one case and returns the predictions by the models' labels; a model whose outlines would lie on another's is left out."""
    from attunet.plots.outlines import draw_outlines
    from attunet.plots.view import view_of

    volume, truth = store.read_source(name, source)
    view = view_of(volume, slice_axis=store.spec.slice_axis, oriented=store.spec.orientation is not None)
    shown: dict[str, np.ndarray] = {}
    everything = {}
    for candidate in candidates:
        prediction, _ = predict_from_file(candidate, store, store.case(name), source)
        everything[candidate.label] = prediction
        counts = [confusion(prediction, other, len(store.classes)) for other in shown.values()]
        if not any(mean_of_defined(dice_from_confusion(c)[1:]) > SAME_OUTLINE for c in counts):
            shown[candidate.name if candidate.name not in shown else candidate.label] = prediction
    draw_outlines(folder / f"outlines_{file_name(name)}.png", volume, view, shown, store.classes, truth=truth, title=name)
    return everything


def _draw_attention(
    folder: Path,
    name: str,
    candidates: Sequence[Candidate],
    predictions: dict[str, np.ndarray],
    store: Store,
    source: Path | None,
) -> None:
    """The gates of every model that has some, at the slice of the case with the most classes predicted."""
    from attunet.plots.attention import draw_attention
    from attunet.plots.view import fullest_slice, view_of

    volume, _ = store.read_source(name, source)
    for candidate in candidates:
        if candidate.attention is None:
            continue
        spec = candidate.spec
        prepared = preprocess(volume, spec)
        view = view_of(volume, slice_axis=spec.slice_axis, oriented=spec.orientation is not None)
        index = fullest_slice(view.slices(predictions[candidate.label]))
        logits, maps = candidate.attention(gather_context(prepared.slices, [index], spec.context_slices))
        if not maps:
            continue
        # Prepared slices are in the view's order, but for sagittal and coronal ones, which have the feet at the top.
        up = slice(None, None, -1 if view.sides and spec.slice_axis != 2 else 1)
        draw_attention(
            folder / f"attention_{file_name(candidate.label)}.png",
            prepared.slices[index, 0, up],
            [m[0, up] for m in maps],
            candidate.classes,
            labels=logits[0].argmax(axis=0)[up],
            sides=view.sides,
            title=f"{candidate.name}, {name}, slice {index + 1} of {len(prepared.slices)}",
        )
