"""Self test of an artefact: a generated input with its output at export, to compare a machine without data."""

from dataclasses import dataclass

import numpy as np

from attunet.errors import InputError, RunError
from attunet.export.artefact.self_test_data import SelfTest
from attunet.export.runtime.segmenter import Segmenter
from attunet.volumes.geometry import resize_linear

SIDE, STRIDE = 64, 4  # of the slices; and of the kept rows and columns
DIFFERENT_LABELS = {"fp32": 1e-3, "fp16": 1e-2, "int8": 5e-2}  # allowed fraction of other labels from a whole artefact
# Largest allowed root mean square of the difference on another provider, as a fraction of the root mean square of the
# logits.
TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "int8": 1e-1}


@dataclass(frozen=True)
class Verification:
    """Result of a self test."""

    provider: str
    difference: float  # its root mean square, as a fraction of that of the logits at export
    tolerance: float
    same_labels: float  # fraction of the compared pixels with the same class

    def __str__(self) -> str:
        return (
            f"provider {self.provider}: logits differ by {self.difference:.2e} of their magnitude (allowed "
            f"{self.tolerance:g}), same class in {self.same_labels:.2%} of the pixels"
        )


def make_self_test(segmenter: Segmenter) -> SelfTest:
    """A self test with the output of `segmenter`."""
    about = segmenter.metadata
    if about.whole:
        volume = np.repeat(_blobs(about.spec.num_channels, SIDE, SIDE).swapaxes(0, 1), 2, axis=1)
        return SelfTest(volume, _output(segmenter, volume, 1), 1, DIFFERENT_LABELS[about.precision])
    slices = _blobs(about.spec.in_channels, about.height or SIDE, about.width or SIDE)
    return SelfTest(slices, _output(segmenter, slices, STRIDE), STRIDE, TOLERANCE[about.precision])


def _output(segmenter: Segmenter, data: np.ndarray, stride: int) -> np.ndarray:
    """Every `stride`-th row and column of the logits; of a whole artefact the label values float32 (1, Z, Y, X), for a
    volume with pixels of 1.25 times the network's.
    """
    if segmenter.metadata.whole:
        labels = segmenter.segment_oriented(data, np.full(3, 1.25 * (segmenter.spec.spacing_mm or 1.0)))
        return np.asarray(labels[None], dtype=np.float32)
    return segmenter.logits(data)[:, :, ::stride, ::stride]


def _blobs(channels: int, height: int, width: int) -> np.ndarray:
    """Smooth spots with noise, in the range of normalised intensities: float32 (1, channels, height, width)."""
    random = np.random.default_rng(0)
    spots = resize_linear(2 * random.standard_normal((1, channels, 8, 8)), (height, width))
    return np.asarray(spots + 0.2 * random.standard_normal(spots.shape, dtype=np.float32))


def verify(segmenter: Segmenter) -> Verification:
    """Run the self test of an artefact. Raises RunError, with the figures, for another output than at export, and
    InputError for an artefact without a self test.
    """
    path, test = segmenter.path, segmenter.metadata.self_test
    if test is None:
        raise InputError(f"{path}: has no self test")
    whole = segmenter.metadata.whole
    kind = "labels" if whole else "logits"
    output = _output(segmenter, test.slices, test.stride)
    if output.shape != test.logits.shape:
        raise InputError(
            f"{path}: the {kind} of the self test have the shape {test.logits.shape}, those of the graph {output.shape}"
        )
    if whole:
        difference = float((output != test.logits).mean())
        same_labels = 1 - difference
    else:
        difference = _root_mean_square(output - test.logits) / max(_root_mean_square(test.logits), 1e-12)
        same_labels = float((output.argmax(axis=1) == test.logits.argmax(axis=1)).mean())
    result = Verification(segmenter.provider, difference, test.tolerance, same_labels)
    if not difference <= test.tolerance:  # NaN fails
        raise RunError(f"{path}: computes other {kind} than at export: {result}")
    return result


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
