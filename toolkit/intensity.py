"""What a volume's intensities are clipped at and scaled with: percentiles, and mean and deviation within them."""

import numpy as np

HISTOGRAM_BYTES = 2  # integers of up to so many bytes are counted: 65,536 values at most


def clipped_statistics(channel: np.ndarray, percentiles: tuple[float, float]) -> tuple[float, float, float, float]:
    """The two percentiles of all voxels, as `np.percentile` gives them, and mean and deviation of the voxels clipped to them.

    channel: finite numbers, its first axis the slices. Integers of scanners (16 bits) are counted slice by slice, which takes a fifth of
    the time and no memory worth mentioning; the order of voxels makes no difference then.
    """
    if channel.dtype.kind in "iu" and channel.dtype.itemsize <= HISTOGRAM_BYTES:
        return _counted(channel, percentiles)
    low, high = (float(v) for v in np.percentile(channel, percentiles))
    clipped = np.clip(channel, low, high).astype(np.float64)
    return low, high, float(clipped.mean()), float(clipped.std())


def _counted(channel: np.ndarray, percentiles: tuple[float, float]) -> tuple[float, float, float, float]:
    least, greatest = int(channel.min()), int(channel.max())
    counts = np.zeros(greatest - least + 1, dtype=np.int64)
    for part in channel:
        counts += np.bincount(part.ravel().astype(np.intp) - least, minlength=len(counts))
    values = np.arange(least, greatest + 1, dtype=np.float64)
    low, high = (_percentile(values, counts, p) for p in percentiles)
    clipped, total = np.clip(values, low, high), int(counts.sum())
    mean = float(np.dot(clipped, counts)) / total
    return low, high, mean, float(np.sqrt(np.dot((clipped - mean) ** 2, counts) / total))


def _percentile(values: np.ndarray, counts: np.ndarray, percentile: float) -> float:
    """Linear between the two ranks next to it, rounded as NumPy rounds."""
    up_to = np.cumsum(counts)
    rank = (int(up_to[-1]) - 1) * (percentile / 100)
    below = int(rank)
    first, second = (float(values[np.searchsorted(up_to, r, side="right")]) for r in (below, min(below + 1, int(up_to[-1]) - 1)))
    share = rank - below
    return second - (second - first) * (1 - share) if share >= 0.5 else first + (second - first) * share
