"""The map of uncertainty on the scan's own grid."""

import numpy as np

from attunet.confidence.features import normalized_entropy, softmax
from attunet.volumes.slices import Grid, assemble, restore_scores


class UncertaintyMap:
    """Collects the entropy of a prediction's probabilities, from 0 to 1, with logits interpolated as for the label map.

    Logits of K classes, the background among them, are divided by the temperature first.
    """

    def __init__(self, grid: Grid, num_classes: int, temperature: float = 1.0) -> None:
        self._grid, self._num_classes, self._temperature = grid, num_classes, temperature
        self._slices = np.zeros((grid.num_slices, *grid.plane_shape), dtype=np.float32)

    def __call__(self, start: int, output: np.ndarray) -> None:
        """Takes the output `(n, K or more, H, W)` for the slices from `start`."""
        logits = restore_scores(output[:, : self._num_classes], self._grid)
        self._slices[start : start + len(logits)] = normalized_entropy(softmax(logits, self._temperature))

    def volume(self) -> np.ndarray:
        """Entropy float32 `(X, Y, Z)` on the scan's own grid."""
        return assemble(self._slices, self._grid)
