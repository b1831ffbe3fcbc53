"""Slices too large for one pass through a network: tiles with overlap, blended."""

from collections.abc import Callable, Iterator

import numpy as np

# float32 slices (N, in_channels, H, W) -> float32 logits (N, K, H, W)
Network = Callable[[np.ndarray], np.ndarray]

MAX_PIXELS = 2048 * 2048  # a slice up to this is run whole
TILE, OVERLAP = 1024, 256  # multiples of 16


def tiled(network: Network, *, max_pixels: int = MAX_PIXELS, tile: int = TILE, overlap: int = OVERLAP) -> Network:
    """A network that runs slices of more than `max_pixels` in overlapping tiles; smaller ones go through whole, as in training.

    Where tiles overlap, logits are averaged with weights that fall towards a tile's edge, so that no seam shows.
    """

    def run(slices: np.ndarray) -> np.ndarray:
        height, width = slices.shape[2:]
        if height * width <= max_pixels:
            return np.asarray(network(slices))
        total: np.ndarray | None = None
        weights = np.zeros((height, width), dtype=np.float32)
        for rows in _spans(height, tile, overlap):
            for columns in _spans(width, tile, overlap):
                logits = np.asarray(network(np.ascontiguousarray(slices[:, :, rows, columns])))
                weight = _ramp(rows, height, overlap)[:, None] * _ramp(columns, width, overlap)
                if total is None:
                    total = np.zeros((*logits.shape[:2], height, width), dtype=np.float32)
                total[:, :, rows, columns] += logits * weight
                weights[rows, columns] += weight
        assert total is not None
        total /= weights
        return total

    return run


def _spans(length: int, tile: int, overlap: int) -> Iterator[slice]:
    """Tiles of one size that cover the length; the last one is moved back to end with it."""
    tile = min(tile, length)
    start = 0
    while start + tile < length:
        yield slice(start, start + tile)
        start += tile - overlap
    yield slice(length - tile, length)


def _ramp(span: slice, length: int, overlap: int) -> np.ndarray:
    """Weights along one axis: rising over the overlap at an inner edge, 1 at the edge of the slice."""
    size = span.stop - span.start
    rise = np.minimum(1, (np.arange(size, dtype=np.float32) + 0.5) / max(1, overlap))
    ramp = np.ones(size, dtype=np.float32)
    if span.start > 0:
        ramp = np.minimum(ramp, rise)
    if span.stop < length:
        ramp = np.minimum(ramp, rise[::-1])
    return ramp
