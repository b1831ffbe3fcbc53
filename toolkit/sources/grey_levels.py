"""Masks whose edges a program has smoothed: the greys that are classes, and the class of every grey between them."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

MAX_CLASS_GREYS = 16  # more different values are the greys of edges, where few of them have regions
MAX_RIPPLE = 8  # between neighbours in a region that smoothing has reached
NEAR = 16  # greys this close to a level are its own
MAX_EDGE_SHARE = 0.1  # of all pixels, far from every level
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


def find_levels(total: Mapping[int, int], regions: Mapping[int, int]) -> tuple[int, ...]:
    """The greys that are classes in a set of masks with smoothed edges; empty where the masks' values are labels as they are.

    Args:
        total: pixels of each grey over all masks.
        regions: the sum of `region_sizes` over the masks with more than `MAX_CLASS_GREYS` values.
    """
    pixels = sum(total.values())
    if not total or min(total) < 0 or max(total) > 255:
        return ()
    if len(total) <= MAX_CLASS_GREYS:
        stray = sum(count for value, count in total.items() if value not in (0, 255))
        near = all(value <= NEAR or value >= 255 - NEAR for value in total)
        return (0, 255) if near and 0 < stray <= MAX_STRAY_SHARE * total.get(255, 0) else ()
    levels: list[int] = []
    for value, _ in sorted(regions.items(), key=lambda item: -item[1]):
        region = sum(count for grey, count in regions.items() if abs(grey - value) <= NEAR)
        if region >= MIN_REGION_SHARE * pixels and all(abs(value - level) > 2 * NEAR for level in levels):
            levels.append(value)
    far = sum(count for value, count in total.items() if all(abs(value - level) > NEAR for level in levels))
    return tuple(sorted(levels)) if len(levels) >= 2 and far <= MAX_EDGE_SHARE * pixels else ()


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
