"""Scores of one model from the metrics of its cases. Cases seen in training count in no mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast, get_args

import numpy as np

from attunet.classes import Classes
from attunet.metrics.aggregate import case_means, mean, summarize
from attunet.metrics.overlap import (
    CaseMetrics,
    dice_from_confusion,
    pixel_accuracy,
    precision_from_confusion,
    recall_from_confusion,
)
from attunet.metrics.results import Metric, ModelComparison, ModelScores, Score
from attunet.metrics.significance import compare_paired, patient_interval

SCORES: tuple[Metric, ...] = get_args(Metric)


@dataclass(frozen=True, eq=False)
class CaseResult:
    case: str
    patient: str
    seen: bool  # the model was trained on this case or on another one of its patient
    metrics: CaseMetrics
    agreement: np.ndarray  # voxel counts `(K, K)` of the first model's prediction (rows) and this one (columns)
    milliseconds: Mapping[str, float]  # of each step from file to file

    def words(self, model: str) -> str:
        dice = mean(self.metrics.dice)
        score = "no class" if np.isnan(dice) else f"Dice {dice:.3f}"
        seen = ", seen in training" if self.seen else ""
        return f"{self.case}: {model}: {score}, {sum(self.milliseconds.values()):.0f} ms{seen}"


def score_row(results: Sequence[CaseResult], classes: Classes) -> ModelScores:
    unseen = [r for r in results if not r.seen]
    counts = sum((r.metrics.counts for r in unseen), np.zeros((len(classes),) * 2, dtype=np.int64))
    scores: dict[str, object] = {metric: _summary(results, metric, classes) for metric in SCORES}
    scores |= {
        "pixel_accuracy": pixel_accuracy(counts),
        "precision_per_class": dict(zip(classes.names, precision_from_confusion(counts).tolist(), strict=True)),
        "recall_per_class": dict(zip(classes.names, recall_from_confusion(counts).tolist(), strict=True)),
        "confusion": counts.tolist(),
        "seen_cases": [r.case for r in results if r.seen],
    }
    return cast(ModelScores, scores)


def volume_times(results: Sequence[CaseResult]) -> dict[str, float]:
    """Milliseconds of each part of a volume and their total, mean over the cases."""
    means = {part: float(np.mean([r.milliseconds[part] for r in results])) for part in results[0].milliseconds}
    return {**means, "total": sum(means.values())}


def compare(first: Sequence[CaseResult], second: Sequence[CaseResult], labels: tuple[str, str]) -> ModelComparison:
    """Compares a second model with the first: agreement of their label maps,
    and difference in Dice on cases that neither has seen.
    """
    agreement = sum((r.agreement for r in second), np.zeros_like(second[0].agreement))
    seen = {r.case for r in [*first, *second] if r.seen}
    scores = [{r.case: mean(r.metrics.dice) for r in results if r.case not in seen} for results in (first, second)]
    comparison = compare_paired(scores[0], scores[1], {r.case: r.patient for r in first}, names=labels)
    return {
        "first": labels[0],
        "second": labels[1],
        "agreement": {"dice": mean(dice_from_confusion(agreement)[1:]), "equal_voxels": pixel_accuracy(agreement)},
        "dice_difference": comparison.to_json(),
        "words": comparison.words,
    }


def _summary(results: Sequence[CaseResult], metric: Metric, classes: Classes) -> Score:
    """`summarize` of one metric, with `ci95`."""
    values = {r.case: getattr(r.metrics, metric) for r in results}
    seen = [r.case for r in results if r.seen]
    means = case_means({case: v for case, v in values.items() if case not in seen})
    interval = patient_interval(means, {r.case: r.patient for r in results})
    return {**summarize(values, classes.foreground, exclude=seen), "ci95": interval}
