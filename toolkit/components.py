"""Connected parts of the classes in a label map. Voxels belong together where their faces touch."""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage


def keep_largest_components(indices: np.ndarray, num_classes: int) -> np.ndarray:
    """Class indices `(X, Y, Z)` where every foreground class keeps its largest part alone; the rest becomes background.

    Of parts of one size the first in the array's order stays. The input is not changed.
    """
    kept = indices.copy()
    for _, box, parts, sizes in _parts(indices, num_classes):
        if len(sizes) > 2:
            kept[box][(parts > 0) & (parts != sizes.argmax())] = 0
    return kept


def largest_shares(indices: np.ndarray, num_classes: int) -> dict[int, float]:
    """The largest part's share of the voxels of every foreground class that occurs in the class indices `(X, Y, Z)`."""
    return {index: float(sizes.max() / sizes.sum()) for index, _, _, sizes in _parts(indices, num_classes)}


def _parts(indices: np.ndarray, num_classes: int) -> Iterator[tuple[int, tuple[slice, ...], np.ndarray, np.ndarray]]:
    """Of every class: its index, the box it lies in, the numbers of the parts in the box (0: none), the voxels of each (of none: 0)."""
    for index, box in enumerate(ndimage.find_objects(indices, max_label=num_classes - 1), start=1):
        if box is not None:
            parts, _ = ndimage.label(indices[box] == index)
            sizes = np.bincount(parts.ravel())
            sizes[0] = 0
            yield index, box, parts, sizes
