"""Post-processing of label maps."""

import numpy as np
from scipy import ndimage


def keep_largest_components(indices: np.ndarray, num_classes: int) -> np.ndarray:
    """Class indices `(X, Y, Z)` where every foreground class keeps its largest part alone (faces touch); the rest becomes background.

    Of parts of one size the first in the array's order stays. The input is not changed.
    """
    kept = indices.copy()
    boxes = ndimage.find_objects(indices, max_label=num_classes - 1)
    for index, box in enumerate(boxes, start=1):
        if box is None:
            continue
        parts, count = ndimage.label(indices[box] == index)
        if count > 1:
            sizes = np.bincount(parts.ravel())
            sizes[0] = 0
            kept[box][(parts > 0) & (parts != sizes.argmax())] = 0
    return kept
