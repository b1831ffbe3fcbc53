"""Metrics of a label map: overlap from the confusion matrix, distances from the surfaces.
Counts are summed before ratios are taken.

Conventions for empty masks, the same everywhere:

| class is in | overlap (Dice, surface Dice, precision, recall) | distances in mm | RAVD | CHAOS score |
|---|---|---|---|---|
| neither truth nor prediction | NaN: not defined, left out of means | NaN | NaN | NaN |
| the prediction alone | 0 | the diagonal of the image | NaN: nothing to be relative to | 0 points each |
| the truth alone | 0 | the diagonal of the image | 100 % | 0 points each |

Voxels whose truth is the ignore label (255) belong to no class in either map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attunet.classes import IGNORE_LABEL
from attunet.errors import InputError
from attunet.metrics.surface import surface_distances
from attunet.metrics.surface_dice import surface_dice

SURFACE_DICE_TOLERANCE_MM = 3.0  # the tolerance of the Medical Segmentation Decathlon for kidneys and spleen


def confusion(prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """Count every pair of classes: int64 `(K, K)`, rows the truth, columns the prediction; K counts the background.

    Class indices are integers or booleans of one shape; voxels whose truth is the ignore label are dropped. Raises
    InputError for other types, two shapes, or indices outside 0 to K - 1.
    """
    if prediction.shape != truth.shape:
        raise InputError(f"prediction and truth must have one shape, got {prediction.shape} and {truth.shape}")
    for name, array in (("prediction", prediction), ("truth", truth)):
        if array.dtype.kind not in "iub":
            raise InputError(f"{name}: class indices must be integers or booleans, got {array.dtype}")
    counted = truth != IGNORE_LABEL
    t, p = truth[counted], prediction[counted]
    for name, array in (("prediction", p), ("truth", t)):
        if array.size and (array.min() < 0 or array.max() >= num_classes):
            raise InputError(f"{name}: class indices must be in 0..{num_classes - 1}, got {array.min()}..{array.max()}")
    pairs = t.astype(np.int64) * num_classes + p
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64)


def dice_from_confusion(counts: np.ndarray) -> np.ndarray:
    """Dice per class, float64 (K,): 2 TP / (2 TP + FP + FN); NaN for a class in neither map, 0 for one in only one."""
    return _ratio(2 * np.diag(counts), counts.sum(0) + counts.sum(1))


def precision_from_confusion(counts: np.ndarray) -> np.ndarray:
    """TP / (TP + FP) per class, (K,); NaN for a class in neither map, 0 for one that is never predicted."""
    return _ratio(np.diag(counts), counts.sum(0), present=counts.sum(0) + counts.sum(1) > 0)


def recall_from_confusion(counts: np.ndarray) -> np.ndarray:
    """TP / (TP + FN) per class, (K,); NaN for a class in neither map, 0 for one that is only predicted."""
    return _ratio(np.diag(counts), counts.sum(1), present=counts.sum(0) + counts.sum(1) > 0)


def ravd_from_confusion(counts: np.ndarray) -> np.ndarray:
    """Relative absolute volume difference per class in percent of the true volume, (K,); NaN without a true volume."""
    truth = counts.sum(1)
    return 100 * _ratio(np.abs(counts.sum(0) - truth), truth)


def pixel_accuracy(counts: np.ndarray) -> float:
    """Share of counted voxels, background included, that have the right class; NaN when nothing is counted."""
    return float(_ratio(np.trace(counts), counts.sum()))


@dataclass(frozen=True, eq=False)
class CaseMetrics:
    """Metrics of one case in 3D: counts `(K, K)` of all classes, the others float64 `(K - 1,)` by foreground class.
    The tables of a cross-validation have every field.
    """

    counts: np.ndarray
    dice: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    ravd_percent: np.ndarray
    hd95_mm: np.ndarray
    assd_mm: np.ndarray
    mssd_mm: np.ndarray
    surface_dice: np.ndarray
    chaos_score: np.ndarray


def case_metrics(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float], num_classes: int) -> CaseMetrics:
    """Every metric of one case on its native grid. Raises InputError where shapes, indices or spacing do not fit.

    Args:
        prediction, truth: class indices `(X, Y, Z)`.
        spacing: voxel size along the axes in mm.
        num_classes: K, with the background.

    Example:
        >>> labels = np.zeros((8, 8, 4), np.uint8)
        >>> labels[2:6, 2:6, 1:3] = 1
        >>> case_metrics(labels, labels, (1.5, 1.5, 5.0), 2).dice
        array([1.])
    """
    counts = confusion(prediction, truth, num_classes)
    counted = truth != IGNORE_LABEL
    masks = [((prediction == k) & counted, truth == k) for k in range(1, num_classes)]
    distances = [surface_distances(*pair, spacing) for pair in masks]
    hd95_mm, assd_mm, mssd_mm = np.array([(d.hd95, d.assd, d.mssd) for d in distances]).T
    in_both = (counts.sum(0) > 0) & (counts.sum(1) > 0)
    dice, ravd_percent = dice_from_confusion(counts)[1:], ravd_from_confusion(counts)[1:]
    return CaseMetrics(
        counts=counts,
        dice=dice,
        precision=precision_from_confusion(counts)[1:],
        recall=recall_from_confusion(counts)[1:],
        ravd_percent=ravd_percent,
        hd95_mm=hd95_mm,
        assd_mm=assd_mm,
        mssd_mm=mssd_mm,
        surface_dice=np.array([surface_dice(*pair, spacing, SURFACE_DICE_TOLERANCE_MM) for pair in masks]),
        chaos_score=chaos_score(dice, ravd_percent, assd_mm, mssd_mm, in_both=in_both[1:]),
    )


def chaos_score(
    dice: np.ndarray, ravd_percent: np.ndarray, assd_mm: np.ndarray, mssd_mm: np.ndarray, *, in_both: np.ndarray
) -> np.ndarray:
    """The CHAOS challenge's score from 0 to 100 per class: the mean of four metrics, each in points above a threshold.

    Source: Kavur et al., CHAOS Challenge, Medical Image Analysis 69 (2021). Dice below 0.8, RAVD above 5 %,
    ASSD above 15 mm and MSSD above 60 mm give no points. An undefined Dice gives NaN.

    Args:
        dice, ravd_percent, assd_mm, mssd_mm: per class, `(K - 1,)`.
        in_both: True for a class in truth and prediction. A class in one alone gets 0 points, however small the image
            is whose diagonal replaces its distances.

    Example:
        >>> both = np.array([True])
        >>> chaos_score(np.array([0.9]), np.array([0.0]), np.array([0.0]), np.array([0.0]), in_both=both)
        array([97.5])
    """
    dice, ravd_percent, assd_mm, mssd_mm = (
        np.asarray(v, dtype=np.float64) for v in (dice, ravd_percent, assd_mm, mssd_mm)
    )
    points = (
        np.where(dice < 0.8, 0, 100 * dice),
        np.where(ravd_percent <= 5, 100 - 20 * ravd_percent, 0),
        np.where(assd_mm <= 15, 100 - 20 / 3 * assd_mm, 0),
        np.where(mssd_mm <= 60, 100 - 5 / 3 * mssd_mm, 0),
    )
    return np.where(np.isnan(dice), np.nan, np.where(in_both, np.mean(points, axis=0), 0))


def _ratio(numerator: np.ndarray, denominator: np.ndarray, *, present: np.ndarray | None = None) -> np.ndarray:
    """NaN where not present (by default: where the denominator is 0), and 0 where present with a denominator of 0."""
    numerator, denominator = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    present = denominator > 0 if present is None else present
    return np.where(present, numerator / np.maximum(denominator, 1), np.nan)
