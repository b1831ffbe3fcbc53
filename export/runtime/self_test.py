"""A generated input with the answer it got at export, so that an artefact can be tried on any machine and provider without data."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attunet.errors import InputError, RunError
from attunet.export.artefact.artefact import Golden
from attunet.export.runtime.segmenter import Segmenter
from attunet.volumes.geometry import resize_linear

SIDE, STRIDE = 64, 4
# Root mean square of the difference allowed on another provider, as a share of the logits' own.
TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2, "int8": 1e-1}


@dataclass(frozen=True)
class Verification:
    """difference: its root mean square, as a share of the logits' own. same_labels: share of compared pixels with the same class."""

    provider: str
    difference: float
    tolerance: float
    same_labels: float

    def __str__(self) -> str:
        return (
            f"provider {self.provider}: logits differ by {self.difference:.2e} of their size (allowed {self.tolerance:g}), "
            f"same class in {self.same_labels:.2%} of the pixels"
        )


def make_golden(segmenter: Segmenter) -> Golden:
    about = segmenter.metadata
    slices = _blobs(about.spec.in_channels, about.height or SIDE, about.width or SIDE)
    return Golden(slices, segmenter.logits(slices)[:, :, ::STRIDE, ::STRIDE], STRIDE, TOLERANCE[about.precision])


def _blobs(channels: int, height: int, width: int) -> np.ndarray:
    """Smooth spots with some noise, of the size that normalised intensities have; (1, channels, height, width)."""
    random = np.random.default_rng(0)
    spots = resize_linear(2 * random.standard_normal((1, channels, 8, 8)), (height, width))
    return spots + 0.2 * random.standard_normal(spots.shape, dtype=np.float32)


def verify(path: Path, provider: str = "cpu", *, num_threads: int | None = None) -> Verification:
    """Runs the golden input. RunError with the figures where the answer is another one, InputError for an artefact without one."""
    segmenter = Segmenter(path, provider=provider, num_threads=num_threads)
    golden = segmenter.metadata.golden
    if golden is None:
        raise InputError(f"{path}: carries no golden input to verify with")
    logits = segmenter.logits(golden.slices)[:, :, :: golden.stride, :: golden.stride]
    if logits.shape != golden.logits.shape:
        raise InputError(f"{path}: the golden logits have the shape {golden.logits.shape}, the graph gives {logits.shape}")
    size = max(_root_mean_square(golden.logits), 1e-12)
    result = Verification(
        provider=provider,
        difference=_root_mean_square(logits - golden.logits) / size,
        tolerance=golden.tolerance,
        same_labels=float((logits.argmax(axis=1) == golden.logits.argmax(axis=1)).mean()),
    )
    if not result.difference <= result.tolerance:  # NaN fails
        raise RunError(f"{path}: gives other logits than at export: {result}")
    return result


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
