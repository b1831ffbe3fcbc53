"""Masks with smoothed edges: detection of the greys that are classes, and of the class of every grey between them."""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from scipy import ndimage

MAX_CLASS_GREYS = 16  # number of values above which they are greys of edges, if few of them fill regions
MAX_RIPPLE = 8  # difference of neighbouring greys within a smoothed region
NEAR = 16  # distance up to which a grey belongs to a level
MAX_EDGE_SHARE = 0.1  # fraction of all pixels that may be far from every level
PEAK_RATIO = 2.2  # ratio to the mean of other greys between levels; smoothing two classes gives up to 1.6
MIN_GAP = 160  # distance of levels; in a narrower gap a peak cannot be distinguished from the levels' own edges
MIN_EDGE_GREYS = 5  # number of greys without a region from which they are edges, even if the mask has few values
MIN_REGION_SHARE = 0.001  # fraction of all pixels that the region of a class has, without its edges
MAX_STRAY_SHARE = 0.02  # fraction of the white pixels that may be nearly black or nearly white
REACH = 4  # pixels over which smoothing mixes classes


def region_sizes(labels: np.ndarray) -> dict[int, int]:
    """For each grey of a mask `(X, Y, Z)`, the number of pixels in whose 3 × 3 neighbourhood greys hardly differ."""
    values, counts = np.unique(labels[_is_flat(labels)], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _is_flat(labels: np.ndarray) -> np.ndarray:
    size = (3, 3, 1)
    greys = labels.astype(np.int32)
    return ndimage.maximum_filter(greys, size=size) - ndimage.minimum_filter(greys, size=size) <= MAX_RIPPLE


def _far(greys: Iterable[int], levels: Collection[int], distance: int = NEAR) -> list[int]:
    """The greys that are farther than a distance from every level."""
    return [grey for grey in greys if all(abs(grey - level) > distance for level in levels)]


def find_levels(total: Mapping[int, int], regions: Mapping[int, int], *, lossy: bool = False) -> tuple[int, ...]:
    """Find the greys that are classes in masks with smoothed edges; empty if all values of the masks are labels.

    Args:
        total: number of pixels of each grey over all masks.
        regions: the sum of `region_sizes` over the masks.
        lossy: True for a lossy format, which changes values, so that even few values need not be labels.
    """
    if not total or min(total) < 0 or max(total) > 255:
        return ()
    smallest = MIN_REGION_SHARE * sum(total.values())
    levels: list[int] = []  # the commonest grey of each large region, with all greys near it
    for value in sorted(regions, key=lambda grey: -regions[grey]):
        region = sum(count for grey, count in regions.items() if abs(grey - value) <= NEAR)
        if region >= smallest and _far([value], levels, 2 * NEAR):
            levels.append(value)
    if lossy and sum(regions[grey] for grey in _far(regions, levels, MAX_RIPPLE)) >= smallest:
        return ()  # regions near a level that do not belong to it: their class cannot be recovered
    if not lossy and len(total) <= MAX_CLASS_GREYS and len(_far(total, levels)) < MIN_EDGE_GREYS:
        stray = sum(count for value, count in total.items() if value not in (0, 255))
        is_binary = not _far(total, (0, 255)) and 0 < stray <= MAX_STRAY_SHARE * total.get(255, 0)
        return (0, 255) if is_binary else ()
    return tuple(sorted(levels)) if len(levels) >= 2 and are_levels(total, levels) else ()


def are_levels(total: Mapping[int, int], levels: Collection[int]) -> bool:
    """Return True if nearly all pixels have a grey near a level, and the others are as few as those of edges."""
    return sum(total[grey] for grey in _far(total, levels)) <= MAX_EDGE_SHARE * sum(total.values())


def find_peak(total: Mapping[int, int], levels: Sequence[int]) -> int | None:
    """A grey midway between two levels, far more frequent than those of edges: perhaps a class without a region."""
    for low, high in itertools.pairwise(sorted(levels)):
        starts = range(low + NEAR, high - 3 * NEAR + 1, NEAR)
        bins = {start + NEAR: sum(total.get(value, 0) for value in range(start, start + 2 * NEAR)) for start in starts}
        middle = [grey for grey in bins if low + 4 * NEAR <= grey <= high - 4 * NEAR]
        if not middle or high - low < MIN_GAP:
            continue
        peak = max(middle, key=lambda grey: bins[grey])
        others = [count for grey, count in bins.items() if abs(grey - peak) >= 2 * NEAR]
        if bins[peak] > PEAK_RATIO * float(np.mean(others)) and bins[peak] >= MIN_REGION_SHARE * sum(total.values()):
            return peak
    return None


def snap(labels: np.ndarray, levels: Sequence[int]) -> np.ndarray:
    """Assign every pixel of a mask `(X, Y, Z)` with smoothed edges to a level.

    A pixel gets the nearest of the levels that have a region within `REACH` pixels: at an edge from 0 to 255, a pixel
    of 128 does not become the class 128.
    """
    values = labels.astype(np.float32)
    distances = np.stack([np.abs(values - level) for level in levels])
    if len(levels) > 2:
        size = (2 * REACH + 1, 2 * REACH + 1, 1)
        flat = _is_flat(labels)
        for distance in distances:
            near = ndimage.maximum_filter(flat & (distance <= NEAR), size=size)
            distance[~near] += 256
    # The higher of two equally near levels wins: from 128 on, a pixel between black and white is white.
    best = len(levels) - 1 - distances[::-1].argmin(axis=0)
    return np.array(levels, dtype=np.int32)[best]
