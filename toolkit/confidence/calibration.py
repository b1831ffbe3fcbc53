"""Temperature scaling of probabilities (Guo et al. 2017, On calibration of modern neural networks),
learned on held-out cases.

A case is reduced to counts for every temperature of a fixed list: neither logits nor labels are kept, and the choice
for any set of cases is a sum of their counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from attunet.classes import IGNORE_LABEL
from attunet.confidence.features import softmax, without_padding
from attunet.fields import Fields, JsonObject, Rule
from attunet.volumes.slices import Grid

TEMPERATURES = tuple(float(2 ** (step / 12)) for step in range(-12, 25))  # 0.5 to 4; 1 is among them
UNSCALED = TEMPERATURES.index(1.0)
BINS = 15
COUNTS = ("nll", "pixels", "confidence", "correct")
# Calibration counts pixels near organs: far background, of which every network is sure, would hide the rest
NEAR_PIXELS = 5
PIXELS_PER_SLICE = 1000


@dataclass(frozen=True, eq=False)
class CalibrationCounts:
    """Counts over the pixels of a case near its organs.

    Args:
        nll: `(T,)` sums of the negative log-likelihood, for each of `TEMPERATURES`.
        pixels, confidence, correct: `(T, BINS)` per bin of the greatest probability: pixels, the sum of that
            probability, and pixels whose class is right.
    """

    nll: np.ndarray
    pixels: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray

    def __add__(self, other: "CalibrationCounts") -> "CalibrationCounts":
        return CalibrationCounts(*(getattr(self, name) + getattr(other, name) for name in COUNTS))

    @classmethod
    def none(cls) -> "CalibrationCounts":
        return cls(np.zeros(len(TEMPERATURES)), *(np.zeros((len(TEMPERATURES), BINS)) for _ in COUNTS[1:]))

    @classmethod
    def of(cls, logits: np.ndarray, truth: np.ndarray) -> "CalibrationCounts":
        """Counts of pixels. logits: `(n, K)`; truth: class indices `(n,)`."""
        counts = cls.none()
        for row, temperature in enumerate(TEMPERATURES):
            probabilities = softmax(logits, temperature)
            chosen = probabilities.argmax(axis=1)
            greatest = probabilities[np.arange(len(truth)), chosen].astype(np.float64)
            bins = np.minimum((greatest * BINS).astype(np.intp), BINS - 1)
            of_truth = probabilities[np.arange(len(truth)), truth].astype(np.float64)
            counts.nll[row] = -np.log(np.maximum(of_truth, 1e-12)).sum()
            counts.pixels[row] = np.bincount(bins, minlength=BINS)
            counts.confidence[row] = np.bincount(bins, weights=greatest, minlength=BINS)
            counts.correct[row] = np.bincount(bins, weights=chosen == truth, minlength=BINS)
        return counts

    @property
    def num_pixels(self) -> int:
        return int(self.pixels[UNSCALED].sum())

    @property
    def gaps(self) -> np.ndarray:
        """Sums of the greatest probability minus right pixels, `(T, BINS)`."""
        return self.confidence - self.correct

    def to_json(self) -> JsonObject:
        return {
            "nll": [round(float(v), 3) for v in self.nll],
            "pixels": self.pixels.astype(int).tolist(),
            "confidence": np.round(self.confidence, 3).tolist(),
            "correct": self.correct.astype(int).tolist(),
        }

    @classmethod
    def from_json(cls, at: Fields) -> "CalibrationCounts":
        """Raises InputError for anything that `to_json` would not have written."""
        rules = {name: Rule(float, 0, length=None if name == "nll" else BINS) for name in COUNTS}
        return cls(*(np.array(at.each(name, rule, len(TEMPERATURES))) for name, rule in rules.items()))


class CalibrationObserver:
    """Collects the counts of one prediction of K classes, the background among them.

    truth: class indices uint8 `(Z, *grid.resampled_shape)`, as `attunet.volumes.slices.resample_labels` gives them.
    """

    def __init__(self, grid: Grid, num_classes: int, truth: np.ndarray) -> None:
        assert truth.shape == (grid.num_slices, *grid.resampled_shape), (truth.shape, grid)
        self._grid, self._num_classes, self._truth = grid, num_classes, truth
        self.counts = CalibrationCounts.none()

    def __call__(self, start: int, output: np.ndarray) -> None:
        """Takes the output `(n, K or more, H, W)` for the slices from `start`."""
        logits = without_padding(output, self._grid)[:, : self._num_classes]
        for one, truth in zip(logits, self._truth[start : start + len(logits)], strict=True):
            organs = (one.argmax(axis=0) > 0) | ((truth > 0) & (truth != IGNORE_LABEL))
            near = ndimage.binary_dilation(organs, ndimage.generate_binary_structure(2, 2), iterations=NEAR_PIXELS)
            chosen = np.flatnonzero(near & (truth != IGNORE_LABEL))
            if len(chosen):
                chosen = chosen[:: -(-len(chosen) // PIXELS_PER_SLICE)]
                self.counts += CalibrationCounts.of(one.reshape(len(one), -1)[:, chosen].T, truth.ravel()[chosen])


@dataclass(frozen=True)
class Calibration:
    """A temperature and its check.

    Args:
        temperature: that logits are divided by; 1 where no other lowers the error of cases that it was not chosen on.
        error_before, error_after: expected calibration error of the held-out cases at temperature 1, and with the
            temperature that the other patients choose.
    """

    temperature: float
    error_before: float
    error_after: float

    @classmethod
    def from_json(cls, at: Fields) -> "Calibration":
        """Raises InputError for anything that `dataclasses.asdict` of one would not give."""
        error = Rule(float, 0, 1)
        temperature = at.get("temperature", Rule(float, 0.1, 10))
        return cls(temperature, at.get("error_before", error), at.get("error_after", error))


def calibrate(by_patient: Sequence[CalibrationCounts]) -> Calibration | None:
    """The temperature of several patients' held-out cases, checked with each left out; None with fewer than three."""
    if len(by_patient) < 3:
        return None
    total = sum(by_patient, CalibrationCounts.none())
    # Each patient at the temperature with the smallest negative log-likelihood of the others
    after = np.sum([one.gaps[np.argmin(total.nll - one.nll)] for one in by_patient], axis=0)
    # Expected calibration error: mean distance of probability and accuracy over the bins
    error_before, error_after = (
        float(np.abs(gaps).sum() / max(1, total.num_pixels)) for gaps in (total.gaps[UNSCALED], after)
    )
    temperature = TEMPERATURES[np.argmin(total.nll)] if error_after < error_before else 1.0
    return Calibration(temperature, error_before, error_after)
