"""Clipping and scaling of intensities: percentiles, and mean and standard deviation between them."""

from dataclasses import dataclass

import numpy as np

from attunet.errors import InputError
from attunet.volumes.spec import PreprocessSpec

HISTOGRAM_BYTES = 2  # integers of up to this size are counted in a histogram of at most 65,536 values


def clipped_statistics(channel: np.ndarray, percentiles: tuple[float, float]) -> tuple[float, float, float, float]:
    """Compute two percentiles of a channel as `np.percentile` does, and mean and deviation of what they clip it to.

    Integers of up to 16 bits, as scanners write them, are counted in a histogram slice by slice (along the first axis).
    This takes a fifth of the time of `np.percentile` and little memory, and the result does not depend on the order of
    voxels.
    """
    if channel.dtype.kind in "iu" and channel.dtype.itemsize <= HISTOGRAM_BYTES:
        return _counted(channel, percentiles)
    low, high = (float(v) for v in np.percentile(channel, percentiles))
    clipped = np.clip(channel, low, high).astype(np.float64)
    return low, high, float(clipped.mean()), float(clipped.std())


def _counted(channel: np.ndarray, percentiles: tuple[float, float]) -> tuple[float, float, float, float]:
    lowest, highest = int(channel.min()), int(channel.max())
    counts = np.zeros(highest - lowest + 1, dtype=np.int64)
    for part in channel:
        counts += np.bincount(part.ravel().astype(np.intp) - lowest, minlength=len(counts))
    values = np.arange(lowest, highest + 1, dtype=np.float64)
    low, high = (_percentile(values, counts, p) for p in percentiles)
    clipped, total = np.clip(values, low, high), int(counts.sum())
    mean = float(np.dot(clipped, counts)) / total
    return low, high, mean, float(np.sqrt(np.dot((clipped - mean) ** 2, counts) / total))


def _percentile(values: np.ndarray, counts: np.ndarray, percentile: float) -> float:
    """Compute a percentile of counted values, linear between the two nearest ranks, with the rounding of
    `numpy.percentile`, which would sort all voxels of a scan.
    """
    up_to = np.cumsum(counts)
    last = int(up_to[-1]) - 1
    rank = last * (percentile / 100)
    below = int(rank)
    ranks = (below, min(below + 1, last))
    first, second = (float(values[np.searchsorted(up_to, r, side="right")]) for r in ranks)
    share = rank - below
    return second - (second - first) * (1 - share) if share >= 0.5 else first + (second - first) * share


@dataclass(frozen=True)
class ChannelStatistics:
    """Clipping bounds and scaling of one channel: `(clip(x, low, high) - shift) / scale`."""

    low: float
    high: float
    shift: float
    scale: float

    @property
    def pad_value(self) -> float:
        """Value of padding: the lower clipping bound, which is air."""
        return (self.low - self.shift) / self.scale


def check_finite(voxels: np.ndarray, where: object = "volume") -> None:
    """Raise InputError for voxels that are not finite."""
    if voxels.dtype.kind == "f" and (bad := int(voxels.size - np.isfinite(voxels).sum())):
        reason = f"voxels must be finite numbers, {bad} of {voxels.size} are NaN or infinite"
        raise InputError(f"{where}: {reason}; replace them, e.g. by the background's value")


def channel_statistics(channel: np.ndarray, spec: PreprocessSpec) -> ChannelStatistics:
    """Compute the intensity scaling of one channel of any shape, by `spec.normalization`. Raises InputError for voxels
    that are not finite.
    """
    check_finite(channel)
    if spec.normalization == "ct":
        low, high = spec.window
        return ChannelStatistics(low, high, shift=(low + high) / 2, scale=(high - low) / 2)
    if spec.normalization == "none":
        integer = np.issubdtype(channel.dtype, np.integer)
        scale = float(np.iinfo(channel.dtype).max) - float(np.iinfo(channel.dtype).min) if integer else 1.0
        return ChannelStatistics(float(channel.min()), float(channel.max()), shift=0.0, scale=scale)
    low, high, mean, deviation = clipped_statistics(channel, spec.clip_percentiles)
    return ChannelStatistics(low, high, shift=mean, scale=deviation if deviation > 0 else 1.0)


def normalize(channel: np.ndarray, statistics: ChannelStatistics) -> np.ndarray:
    """Clip and scale a channel; returns float32 of the same shape."""
    scaled = channel.astype(np.float32)
    np.clip(scaled, np.float32(statistics.low), np.float32(statistics.high), out=scaled)
    scaled -= np.float32(statistics.shift)
    scaled /= np.float32(statistics.scale)
    return scaled
