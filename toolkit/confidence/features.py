"""Features of a prediction from which its Dice is estimated: sums over the network's output, taken while it passes by.

The same code computes them where the estimate is learned and where it is used. It works on the network's grid, without
the padding.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from attunet.fields import Fields, Rule
from attunet.volumes.slices import Grid
from attunet.volumes.training_ranges import Range, TrainingRanges, spacing_and_extent
from attunet.volumes.volume import Volume

# Of the logarithm of a figure's range: training scans of one spacing do not make 1 % more a distance
MIN_HALF_WIDTH = 0.1
MIN_SIZE = 1e-30  # mm³ of an organ in a file: its logarithm is taken


@dataclass(frozen=True)
class OrganFeatures:
    """Features of one predicted organ, before post-processing.

    Args:
        size: in mm³, or in pixels without physical spacing.
        parts: connected parts, across faces.
        largest_part: fraction of the voxels in the largest part.
        expected_dice: Dice with a reference drawn from the probabilities, 2 Σ p over the organ / (voxels + Σ p over the
            scan).
        entropy: mean over the organ's voxels, 1 for equal probabilities of all classes.
        margin: mean distance of the greatest probability from the second.
        disagreement: mean over the organ's voxels of the entropy of the mean minus the mean entropy of an ensemble's
            members, scaled as the entropy; None for a single network.
    """

    size: float
    parts: int
    largest_part: float
    expected_dice: float
    entropy: float
    margin: float
    disagreement: float | None = None

    @classmethod
    def from_json(cls, at: Fields) -> "OrganFeatures":
        """Raises InputError for anything that `dataclasses.asdict` of one would not give."""
        shares = ("largest_part", "expected_dice", "entropy", "margin")
        return cls(
            size=at.get("size", Rule(float, MIN_SIZE)),
            parts=at.whole("parts", 1),
            **{name: at.get(name, Rule(float, 0, 1)) for name in shares},
            disagreement=at.get("disagreement", Rule(float, 0, 1, null=True)),
        )


@dataclass(frozen=True)
class CaseFeatures:
    """Features of one prediction: of each foreground class, None where it was not predicted; and the distance of the
    scan from the training's ranges, 0 in their middle, 1 at their ends.
    """

    organs: tuple[OrganFeatures | None, ...]
    distance: float

    @classmethod
    def from_json(cls, at: Fields, num_organs: int) -> "CaseFeatures":
        """Raises InputError for what `dataclasses.asdict` of one would not give, or another number of foreground
        classes.
        """
        organs = at.optional_rows("organs", OrganFeatures.from_json, num_organs)
        return cls(tuple(organs), at.get("distance", Rule(float, 0)))


class FeatureObserver:
    """Collects the features of one prediction of K classes; `predict_prepared` calls it with every batch.

    Besides sums it keeps the class indices on the network's grid, one byte per pixel. Sums are kept per slice, so that
    the features do not depend on the number of slices in a batch.
    """

    def __init__(self, grid: Grid, num_classes: int) -> None:
        self._grid, self._num_classes = grid, num_classes
        self._labels = np.zeros((grid.num_slices, *grid.resampled_shape), dtype=np.uint8)
        # Sums over the voxels of a class: entropy, margin, confidence, disagreement
        self._sums = np.zeros((grid.num_slices, 4, num_classes))
        self._mass = np.zeros((grid.num_slices, num_classes))
        self._has_disagreement = False

    def __call__(self, start: int, output: np.ndarray) -> None:
        """Takes the output `(n, K or K + 1, H, W)` for the slices from `start`; channel K is the disagreement."""
        logits, rest = np.split(without_padding(output, self._grid), [self._num_classes], axis=1)
        self._has_disagreement = rest.shape[1] == 1
        probabilities = softmax(logits)
        labels, best, second = _two_greatest(probabilities)
        entropy = normalized_entropy(probabilities)
        for index in range(len(logits)):
            chosen = labels[index].ravel()
            values = [entropy[index], best[index] - second[index], best[index], *rest[index]]
            for row, value in zip(self._sums[start + index], values, strict=False):
                row[:] = np.bincount(chosen, weights=value.ravel(), minlength=self._num_classes)
            self._mass[start + index] = probabilities[index].sum(axis=(1, 2), dtype=np.float64)
        self._labels[start : start + len(labels)] = labels

    def features(self, distance: float) -> CaseFeatures:
        """The features of the whole prediction. distance: as `training_distance` gives it."""
        boxes = ndimage.find_objects(self._labels, max_label=self._num_classes - 1)
        organs = (None if box is None else self._organ(index, box) for index, box in enumerate(boxes, start=1))
        return CaseFeatures(tuple(organs), distance)

    def _organ(self, index: int, box: tuple[slice, ...]) -> OrganFeatures:
        sizes = np.bincount(ndimage.label(self._labels[box] == index)[0].ravel())[1:]
        voxels, mass = int(sizes.sum()), float(self._mass.sum(axis=0)[index])
        entropy, margin, confidence, disagreement = (float(value) for value in self._sums.sum(axis=0)[:, index])
        return OrganFeatures(
            size=voxels * pixel_volume(self._grid),
            parts=len(sizes),
            largest_part=float(sizes.max() / voxels),
            expected_dice=min(1.0, 2 * confidence / (voxels + mass)),
            entropy=min(1.0, entropy / voxels),
            margin=min(1.0, margin / voxels),
            disagreement=min(1.0, max(0.0, disagreement / voxels)) if self._has_disagreement else None,
        )


def training_distance(volume: Volume, ranges: TrainingRanges | None, orientation: str | None) -> float:
    """The largest distance of a scan's spacing, extent or intensities from the middle of the training's ranges, in
    their half widths; 0 without ranges, and where the units cannot be compared. `orientation` is of the preprocessing.
    """
    if ranges is None or volume.unit != ranges.unit:
        return 0.0
    spacing, extent = spacing_and_extent(volume, orientation)
    deviations = [float(channel.std(dtype=np.float64)) for channel in volume.data]
    pairs = [*zip(spacing, ranges.spacing, strict=True), *zip(extent, ranges.extent, strict=True)]
    pairs += zip(deviations, ranges.std, strict=False)
    return max(_distance(value, span) for value, span in pairs)


def without_padding(slices: np.ndarray, grid: Grid) -> np.ndarray:
    """The part of `(n, C, H, W)` that is not padding, `(n, C, *grid.resampled_shape)`."""
    (top, left), (height, width) = grid.offset, grid.resampled_shape
    assert min(top, left) >= 0, grid  # prediction crops nothing
    return slices[:, :, top : top + height, left : left + width]


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities float32 of logits `(n, K, ...)`, divided by the temperature first."""
    scaled = np.asarray(logits, dtype=np.float32) / np.float32(temperature)
    scaled -= scaled.max(axis=1, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=1, keepdims=True)
    return scaled


def normalized_entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy over the second axis of `(n, K, ...)`, 1 where all classes are equally probable: float32 `(n, ...)`."""
    tiny = np.float32(1e-12)
    total = np.zeros((len(probabilities), *probabilities.shape[2:]), dtype=np.float32)
    for index in range(probabilities.shape[1]):
        one = probabilities[:, index]
        total -= one * np.log(one + tiny)
    total /= np.float32(math.log(probabilities.shape[1]))
    return np.clip(total, 0, 1, out=total)


def pixel_volume(grid: Grid) -> float:
    """Volume of a pixel of the network's grid times the slice's thickness, in mm³, or in pixels without spacing."""
    native, resampled = grid.plane_shape, grid.resampled_shape
    return float(np.prod(grid.native_spacing)) * (native[0] * native[1]) / (resampled[0] * resampled[1])


def _two_greatest(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """argmax over the second axis as uint8 (the lower index of equal values), the greatest value, and the second."""
    best, second = values[:, 0].copy(), np.zeros_like(values[:, 0])
    labels = np.zeros(best.shape, dtype=np.uint8)
    for index in range(1, values.shape[1]):
        one = values[:, index]
        np.maximum(second, np.minimum(one, best), out=second)
        np.copyto(labels, index, where=one > best)
        np.maximum(best, one, out=best)
    return labels, best, second


def _distance(value: float, span: Range) -> float:
    """Distance from the middle of a range in half widths, all as logarithms."""
    low, high, value = (math.log(max(v, 1e-6)) for v in (*span, value))
    return abs(value - (low + high) / 2) / max((high - low) / 2, MIN_HALF_WIDTH)
