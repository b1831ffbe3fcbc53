"""Masks whose edges a program has smoothed: the greys that are classes, and the class of every grey between them."""

import itertools
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from scipy import ndimage

MAX_CLASS_GREYS = 16  # more different values are the greys of edges, where few of them have regions
MAX_RIPPLE = 8  # between neighbours in a region that smoothing has reached
NEAR = 16  # greys this close to a level are its own
MAX_EDGE_SHARE = 0.1  # of all pixels, far from every level
PEAK_RATIO = 2.2  # over the mean of other greys between levels; of the usual filters, smoothing two classes gives up to 1.6
MIN_GAP = 160  # between levels; in a narrower one a peak cannot be distinguished from the levels' own edges
MIN_EDGE_GREYS = 5  # so many greys without a region, though the mask has few values, are edges
MIN_REGION_SHARE = 0.001  # of all pixels: the region of a class, without its edges
MAX_STRAY_SHARE = 0.02  # of the white pixels: a few that are nearly black or nearly white
REACH = 4  # pixels over which smoothing mixes classes


def region_sizes(labels: np.ndarray) -> dict[int, int]:
    """For each grey of a mask `(X, Y, Z)`, the number of pixels in whose 3 × 3 neighbourhood greys hardly differ."""
    values, counts = np.unique(labels[_is_flat(labels)], return_counts=True)
    return {int(v): int(n) for v, n in zip(values, counts, strict=True)}


def _is_flat(labels: np.ndarray) -> np.ndarray:
    size = (3, 3, 1)
    greys = labels.astype(np.int32)
    return ndimage.maximum_filter(greys, size=size) - ndimage.minimum_filter(greys, size=size) <= MAX_RIPPLE


def _with_regions(total: Mapping[int, int], regions: Mapping[int, int]) -> list[int]:
    """The greys that fill regions, each with all greys near it."""
    levels: list[int] = []
    for value, _ in sorted(regions.items(), key=lambda item: -item[1]):
        region = sum(count for grey, count in regions.items() if abs(grey - value) <= NEAR)
        if region >= MIN_REGION_SHARE * sum(total.values()) and all(abs(value - level) > 2 * NEAR for level in levels):
            levels.append(value)
    return levels


def find_levels(total: Mapping[int, int], regions: Mapping[int, int], *, lossy: bool = False) -> tuple[int, ...]:
    """The greys that are classes in a set of masks with smoothed edges; empty where the masks' values are labels as they are.

    Args:
        total: pixels of each grey over all masks.
        regions: the sum of `region_sizes` over the masks.
        lossy: a lossy format changed the values, so that few of them are no labels either.
    """
    if not total or min(total) < 0 or max(total) > 255:
        return ()
    levels = _with_regions(total, regions)
    smallest = MIN_REGION_SHARE * sum(total.values())
    if lossy and sum(n for grey, n in regions.items() if all(abs(grey - v) > MAX_RIPPLE for v in levels)) >= smallest:
        return ()  # regions that are near a level and not of it: which class they are is lost
    between = [value for value in total if all(abs(value - level) > NEAR for level in levels)]
    if not lossy and len(total) <= MAX_CLASS_GREYS and len(between) < MIN_EDGE_GREYS:
        stray = sum(count for value, count in total.items() if value not in (0, 255))
        near = all(value <= NEAR or value >= 255 - NEAR for value in total)
        return (0, 255) if near and 0 < stray <= MAX_STRAY_SHARE * total.get(255, 0) else ()
    return tuple(sorted(levels)) if len(levels) >= 2 and are_levels(total, levels) else ()


def are_levels(total: Mapping[int, int], levels: Collection[int]) -> bool:
    """True where nearly all pixels have a grey near a level, and the others are as few as edges are."""
    far = sum(count for value, count in total.items() if all(abs(value - level) > NEAR for level in levels))
    return far <= MAX_EDGE_SHARE * sum(total.values())


def find_peak(total: Mapping[int, int], levels: Sequence[int]) -> int | None:
    """A grey midway between two levels that is much more frequent than those of edges, perhaps a class without a region; else None."""
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
    """Every pixel of a mask `(X, Y, Z)` with smoothed edges at the level that it belongs to.

    A pixel joins the nearest grey among the levels whose regions lie within `REACH` pixels: at an edge from 0 to 255, a pixel of 128 is
    none of the class 128.
    """
    values = labels.astype(np.float32)
    distances = np.stack([np.abs(values - level) for level in levels])
    if len(levels) > 2:
        size = (2 * REACH + 1, 2 * REACH + 1, 1)
        flat = _is_flat(labels)
        for distance in distances:
            near = ndimage.maximum_filter(flat & (distance <= NEAR), size=size)
            distance[~near] += 256
    # of two levels that are equally near, the higher: from 128 on, a pixel between black and white is white
    best = len(levels) - 1 - distances[::-1].argmin(axis=0)
    return np.array(levels, dtype=np.int32)[best]
