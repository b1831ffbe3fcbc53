"""Prediction of a volume slice by slice: the same code for PyTorch, every ONNX provider, validation and deployment."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from attunet.errors import RunError, TooLarge
from attunet.volumes.geometry import resize_linear
from attunet.volumes.postprocess import postprocess
from attunet.volumes.slices import VolumeSlices, assemble, make_grid, restore, restore_scores
from attunet.volumes.spec import UNTOUCHED, Postprocessing, PreprocessSpec
from attunet.volumes.volume import Volume

# float32 slices (N, in_channels, H, W) -> float32 logits (N, K, H, W)
Network = Callable[[np.ndarray], np.ndarray]

# called with the number of a batch's first slice and the network's output for it, with the padding
Observer = Callable[[int, np.ndarray], None]

# slices float32 (N, in_channels, H, W) -> the map of every gate (N, h, w), the deepest first
AttentionMaps = Callable[[np.ndarray], tuple[np.ndarray, ...]]

ATTENTION_BATCH = 8  # slices
MAX_BATCH_PIXELS = 8 * 512 * 512  # pixels of a batch, in one channel
MAX_PIXELS = 2048 * 2048  # pixels of a slice; larger slices are run in tiles
TILE, OVERLAP = 1024, 256  # multiples of 16
MAX_MEGAPIXELS = 512  # pixels of a volume on the network's grid, in millions: about 2,000 slices of 512 × 512
MAX_GROWTH = 4  # ratio of pixels after and before resampling, as of a scan of 1 mm at a network's 0.5 mm
SLICES_AT_ONCE = 32  # one slice may have 1/32 of MAX_MEGAPIXELS, because memory holds the features of a whole slice


def predict_prepared(
    network: Network,
    prepared: VolumeSlices,
    *,
    batch_size: int = 8,
    postprocessing: Postprocessing = UNTOUCHED,
    observers: Sequence[Observer] = (),
    num_classes: int | None = None,
) -> np.ndarray:
    """Segment prepared slices. Beside these and the label map, memory holds one batch of slices at a time.

    Args:
        network: any function from slices float32 `(N, in_channels, H, W)` to logits float32 `(N, K, H, W)`; H and W are
            multiples of 16, and slices of more than `MAX_PIXELS` are run in tiles. The output may have more channels
            after the logits, for observers.
        prepared: the scan as slices.
        batch_size: number of slices per batch; smaller if slices are large.
        postprocessing: post-processing of the label map.
        observers: functions that receive the network's output of every batch.
        num_classes: K, the number of channels that are logits; all channels by default.

    Returns:
        Class indices uint8 `(X, Y, Z)` on the volume's own grid.

    Raises RunError for logits that are not finite, or fewer than `num_classes`.

    Example:
        >>> spec = PreprocessSpec("LPS", 2, spacing_mm=None, size=(32, 32), normalization="none")
        >>> volume = Volume(np.ones((1, 20, 20, 5), np.float32), np.diag([-1.0, -1.0, 4.0, 1.0]))
        >>> network = lambda slices: np.concatenate([0.5 - slices, slices - 0.5], axis=1)
        >>> predict_prepared(network, VolumeSlices(volume, spec)).mean()
        np.float64(1.0)
    """
    grid = prepared.grid
    run = tiled(network)
    batch_size = slices_in_batch(grid.window, batch_size)
    labels = np.empty((grid.num_slices, *grid.plane_shape), dtype=np.uint8)
    for start in range(0, grid.num_slices, batch_size):
        stop = min(start + batch_size, grid.num_slices)
        batch = prepared.batch(start, stop)
        output = run(batch)
        assert output.shape == (len(batch), output.shape[1], *batch.shape[2:]), (output.shape, batch.shape)
        if not np.isfinite(output).all():
            raise RunError(f"network: logits must be finite, those of slices {start} to {stop - 1} are not")
        if num_classes is not None and output.shape[1] < num_classes:
            rule = f"must give {num_classes} logits for each pixel, one for each class"
            raise RunError(f"network: {rule}, got {output.shape[1]}")
        for observer in observers:
            observer(start, output)
        logits = output[:, :num_classes]
        labels[start:stop] = restore(logits, grid)
    return postprocess(assemble(labels, grid), logits.shape[1], grid.native_spacing, postprocessing)


def slices_in_batch(window: Sequence[int], at_most: int) -> int:
    """The number of slices of this height and width that are run at once: fewer of large ones.

    Example:
        >>> slices_in_batch((1024, 1024), 8)
        2
    """
    return max(1, min(at_most, MAX_BATCH_PIXELS // math.prod(window)))


def attention_volumes(maps: AttentionMaps, prepared: VolumeSlices) -> list[np.ndarray]:
    """Compute the map of every gate, the deepest first, as float32 `(X, Y, Z)` from 0 to 1 on the volume's own grid."""
    grid = prepared.grid
    gates: list[list[np.ndarray]] = []
    for start in range(0, grid.num_slices, ATTENTION_BATCH):
        of_batch = maps(prepared.batch(start, min(start + ATTENTION_BATCH, grid.num_slices)))
        gates = gates or [[] for _ in of_batch]
        for parts, part in zip(gates, of_batch, strict=True):
            parts.append(restore_scores(resize_linear(part[:, None], grid.window), grid)[:, 0])
    return [assemble(np.concatenate(parts), grid) for parts in gates]


def check_megapixels(volume: Volume, spec: PreprocessSpec, max_megapixels: int = MAX_MEGAPIXELS) -> None:
    """Refuse a volume that would grow too large on the network's grid, from its shape and spacing alone.

    The header of a small file can claim tens of thousands of slices of one voxel, each of which is padded to the
    training window, or voxels of 400 mm, which are resampled to 1.5 mm. A volume is always accepted if its number of
    pixels grows by less than `MAX_GROWTH`. The bound is on the pixels of all slices together; one slice may have a 32nd
    of it. Raises TooLarge, with the figure and the option that raises the bound.
    """
    grid = make_grid(volume, spec)
    window, native = math.prod(grid.window), math.prod(grid.plane_shape)
    spacing = " × ".join(f"{s:.4g}" for s in volume.spacing)
    described = f"{' × '.join(map(str, volume.shape))} voxels of {spacing} {volume.unit}"
    for slices, bound, name in (
        (grid.num_slices, max_megapixels, f"{grid.num_slices:,} slices"),
        (1, max_megapixels / SLICES_AT_ONCE, "a slice"),
    ):
        pixels = slices * window
        if pixels > max(bound * 1e6, MAX_GROWTH * slices * native):
            size = (
                f"{grid.window[0]} × {grid.window[1]} pixels on the network's grid are {pixels / 1e6:,.0f} megapixels"
            )
            option = "--max-megapixels N raises the bound to N for a volume"
            raise TooLarge(f"volume: {name} of {size}, at most {bound:,.0f} are allowed ({described}); {option}")


def tiled(network: Network) -> Network:
    """Wrap a network so that slices of more than `MAX_PIXELS` are run in overlapping tiles; smaller slices run whole.

    In the overlap, logits are averaged with weights that decrease towards the edge of a tile, so that no seam is
    visible.
    """

    def run(slices: np.ndarray) -> np.ndarray:
        height, width = slices.shape[2:]
        if height * width <= MAX_PIXELS:
            return np.asarray(network(slices))
        total: np.ndarray | None = None
        weights = np.zeros((height, width), dtype=np.float32)
        for rows in _spans(height):
            for columns in _spans(width):
                logits = np.asarray(network(np.ascontiguousarray(slices[:, :, rows, columns])))
                weight = _ramp(rows, height)[:, None] * _ramp(columns, width)
                if total is None:
                    total = np.zeros((*logits.shape[:2], height, width), dtype=np.float32)
                total[:, :, rows, columns] += logits * weight
                weights[rows, columns] += weight
        assert total is not None
        total /= weights
        return total

    return run


def _spans(length: int) -> Iterator[slice]:
    """Yield tiles of one size that cover the length; the last tile is shifted so that it ends with it."""
    tile = min(TILE, length)
    start = 0
    while start + tile < length:
        yield slice(start, start + tile)
        start += tile - OVERLAP
    yield slice(length - tile, length)


def _ramp(span: slice, length: int) -> np.ndarray:
    """Return the weights along one axis: rising over the overlap at an inner edge, 1 at the edge of the slice."""
    size = span.stop - span.start
    rise = np.minimum(1, (np.arange(size, dtype=np.float32) + 0.5) / OVERLAP)
    ramp = np.ones(size, dtype=np.float32)
    if span.start > 0:
        ramp = np.minimum(ramp, rise)
    if span.stop < length:
        ramp = np.minimum(ramp, rise[::-1])
    return ramp
