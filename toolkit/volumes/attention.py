"""The maps of attention gates on a volume's own grid."""

from collections.abc import Callable

import numpy as np

from attunet.volumes.geometry import resize_linear
from attunet.volumes.slices import VolumeSlices, assemble, restore_scores

BATCH_SIZE = 8

# slices float32 (N, in_channels, H, W) -> the map of every gate (N, h, w), the deepest first
AttentionMaps = Callable[[np.ndarray], tuple[np.ndarray, ...]]


def attention_volumes(maps: AttentionMaps, prepared: VolumeSlices) -> list[np.ndarray]:
    """Compute the map of every gate, the deepest first, as float32 `(X, Y, Z)` from 0 to 1 on the volume's own grid."""
    gates: list[list[np.ndarray]] = []
    for start in range(0, prepared.grid.num_slices, BATCH_SIZE):
        of_batch = maps(prepared.batch(start, min(start + BATCH_SIZE, prepared.grid.num_slices)))
        gates = gates or [[] for _ in of_batch]
        for parts, part in zip(gates, of_batch, strict=True):
            parts.append(restore_scores(resize_linear(part[:, None], prepared.grid.window), prepared.grid)[:, 0])
    return [assemble(np.concatenate(parts), prepared.grid) for parts in gates]
