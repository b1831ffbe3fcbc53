"""Ranges of spacing, size and intensity seen in training; used to warn about inputs outside them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from attunet.errors import Finding
from attunet.fields import Fields
from attunet.volumes.geometry import orientation_transform, oriented_spacing
from attunet.volumes.volume import Volume

FAR_SPACING = 1.5  # factor above the largest or below the smallest value of the training
FAR_EXTENT = 1.75
FAR_DEVIATION = 4.0
OUTSIDE = "untrained-"  # begins the rules of these findings

Range = tuple[float, float]
Outside = tuple[str, float, str]  # rule, figure and line of a figure outside the training ranges


@dataclass(frozen=True)
class TrainingRanges:
    """Smallest and largest value over the cases of a data set."""

    unit: str  # unit of spacing and extent, "mm" or "pixel"
    spacing: tuple[Range, ...]  # voxel size along each of the three oriented axes
    extent: tuple[Range, ...]  # size of the volume along each of the three oriented axes
    std: tuple[Range, ...]  # standard deviation of the intensities of each channel
    mean: tuple[Range, ...] = ()  # mean of them; artefacts of schema 1 lack it

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, at: Fields) -> "TrainingRanges":
        """Read the JSON of `to_json`, ignoring unknown fields; raises InputError for anything else."""
        return cls(
            at.choice("unit", ("mm", "pixel")),
            spacing=at.spans("spacing", 3),
            extent=at.spans("extent", 3),
            std=at.spans("std"),
            mean=at.spans("mean") if "mean" in at else (),
        )


def range_of(values: Sequence[float]) -> Range:
    return min(values), max(values)


def check_input(volume: Volume, ranges: TrainingRanges | None, orientation: str | None) -> list[Finding]:
    """Warn about an input whose orientation is a guess, or whose figures lie far outside the training ranges.

    `orientation` has the axis codes of the model's preprocessing; None if it does not orient.
    """
    figures = _outside(volume, ranges, orientation)
    return [Finding(None, f"{OUTSIDE}{rule}", figure, "warning", text) for rule, figure, text in figures]


def _outside(volume: Volume, ranges: TrainingRanges | None, orientation: str | None) -> Iterator[Outside]:
    if orientation is not None and not volume.is_oriented:
        yield "orientation", 0.0, "the scan states no orientation, so that left and right of the label map are a guess"
    if ranges is None:
        return
    if volume.unit == ranges.unit:
        yield from _geometry(volume, ranges, orientation)
    else:
        units = f"the input's spacing is in {volume.unit}, that of the training in {ranges.unit}"
        yield "unit", 0.0, f"{units}: they cannot be compared"
    yield from _intensities(volume, ranges)


def spacing_and_extent(volume: Volume, orientation: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Voxel size and size of a volume along its oriented axes."""
    transform = orientation_transform(volume.affine, orientation)
    spacing, shape = oriented_spacing(volume.spacing, transform), oriented_spacing(volume.shape, transform)
    return spacing, tuple(size * length for size, length in zip(spacing, shape, strict=True))


def _geometry(volume: Volume, ranges: TrainingRanges, orientation: str | None) -> Iterator[Outside]:
    spacing, extent = spacing_and_extent(volume, orientation)
    for rule, what, values, spans, factor in (
        ("spacing", "spacing", spacing, ranges.spacing, FAR_SPACING),
        ("size", "extent", extent, ranges.extent, FAR_EXTENT),
    ):
        for axis, (value, (low, high)) in enumerate(zip(values, spans, strict=True)):
            if not low / factor <= value <= high * factor:
                seen = f"is {value:.4g}, training had {low:.4g} to {high:.4g}"
                yield rule, value, f"{what} along axis {axis} ({volume.unit}) {seen}"


def _intensities(volume: Volume, ranges: TrainingRanges) -> Iterator[Outside]:
    for channel, (values, (low, high)) in enumerate(zip(volume.data, ranges.std, strict=False)):
        mean, std = _mean_and_deviation(values)
        if not low / FAR_DEVIATION <= std <= high * FAR_DEVIATION:
            seen = f"is {std:.4g}, training had {low:.4g} to {high:.4g}"
            yield "intensity", std, f"deviation of intensities in channel {channel} {seen}"
        elif channel < len(ranges.mean):
            # The mean differs by more than the spread of the intensities: a CT in other units, an inverted picture.
            lowest, highest = ranges.mean[channel]
            if not lowest - max(std, high) <= mean <= highest + max(std, high):
                seen = f"is {mean:.4g}, training had {lowest:.4g} to {highest:.4g}"
                yield "intensity", mean, f"mean of intensities in channel {channel} {seen}"


def _mean_and_deviation(values: np.ndarray) -> tuple[float, float]:
    """Compute mean and standard deviation in float64, one plane at a time, without a float64 copy of the volume."""
    mean = sum(float(plane.sum(dtype=np.float64)) for plane in values) / values.size
    squares = sum(float(np.square(plane - mean, dtype=np.float64).sum()) for plane in values)
    return mean, math.sqrt(squares / values.size)
