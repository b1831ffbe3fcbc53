"""From the metrics of every case to what one row of the results says. Only cases that the model has not seen enter a mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attunet.classes import Classes
from attunet.metrics.aggregate import mean_of_defined, per_patient
from attunet.metrics.overlap import (
    CaseMetrics,
    dice_from_confusion,
    pixel_accuracy,
    precision_from_confusion,
    recall_from_confusion,
)
from attunet.metrics.significance import bootstrap_interval, compare_paired

# name in results.json: field of CaseMetrics
SCORES = {
    "dice": "dice",
    "hd95_mm": "hd95_mm",
    "assd_mm": "assd_mm",
    "mssd_mm": "mssd_mm",
    "ravd_percent": "ravd_percent",
    "surface_dice": "surface_dice",
    "chaos_score": "chaos_score",
}


@dataclass(frozen=True, eq=False)
class CaseResult:
    """What one model made of one case. seen: the model was trained on this case, or on another one of its patient."""

    case: str
    patient: str
    seen: bool
    metrics: CaseMetrics
    agreement: np.ndarray  # counts (K, K) of this prediction against the first model's
    milliseconds: Mapping[str, float]  # part of the way from file to file: time


def score_row(results: Sequence[CaseResult], classes: Classes) -> dict[str, Any]:
    """The scores of one model as they stand in results.json."""
    unseen = [r for r in results if not r.seen]
    row: dict[str, Any] = {name: _summary(results, field, classes) for name, field in SCORES.items()}
    counts = sum((r.metrics.counts for r in unseen), np.zeros((len(classes),) * 2, dtype=np.int64))
    row["pixel_accuracy"] = pixel_accuracy(counts)
    row["precision_per_class"] = dict(zip(classes.names, precision_from_confusion(counts), strict=True))
    row["recall_per_class"] = dict(zip(classes.names, recall_from_confusion(counts), strict=True))
    row["confusion"] = counts.tolist()
    row["seen_cases"] = [r.case for r in results if r.seen]
    parts = results[0].milliseconds if results else {}
    row["volume_ms"] = {part: float(np.mean([r.milliseconds[part] for r in results])) for part in parts}
    row["volume_ms"]["total"] = sum(row["volume_ms"].values())
    return row


def compare(first: Sequence[CaseResult], second: Sequence[CaseResult], labels: tuple[str, str]) -> dict[str, Any]:
    """The second model against the first: how alike their label maps are, and whose Dice is higher on cases neither has seen."""
    agreement = sum((r.agreement for r in second), np.zeros_like(second[0].agreement))
    seen = {r.case for r in [*first, *second] if r.seen}
    scores = [{r.case: float(mean_of_defined(r.metrics.dice)) for r in results if r.case not in seen} for results in (first, second)]
    comparison = compare_paired(scores[0], scores[1], {r.case: r.patient for r in first}, names=labels)
    return {
        "first": labels[0],
        "second": labels[1],
        "agreement": {"dice": float(mean_of_defined(dice_from_confusion(agreement)[1:])), "equal_voxels": pixel_accuracy(agreement)},
        "dice_difference": comparison.to_json(),
        "words": comparison.words,
    }


def _summary(results: Sequence[CaseResult], field: str, classes: Classes) -> dict[str, Any]:
    """mean: over the foreground classes of each case, then over cases; ci95: bootstrap over patients; per_case lists seen cases too."""
    values = {r.case: getattr(r.metrics, field) for r in results}
    unseen = [r for r in results if not r.seen]
    case_means = {r.case: float(mean_of_defined(values[r.case])) for r in unseen}
    interval = bootstrap_interval(np.array(list(per_patient(case_means, {r.case: r.patient for r in unseen}).values())))
    per_class = mean_of_defined(np.stack([values[r.case] for r in unseen]), axis=0) if unseen else np.full(len(classes) - 1, np.nan)
    return {
        "mean": float(mean_of_defined(np.array(list(case_means.values())))),
        "ci95": None if interval is None else list(interval),
        "per_class": dict(zip(classes.foreground, per_class, strict=True)),
        "per_case": {case: dict(zip(classes.foreground, v, strict=True)) for case, v in values.items()},
    }
