"""A volume through a network, slice by slice: one piece of code for PyTorch, every ONNX provider, validation and deployment."""

import numpy as np

from attunet.errors import RunError
from attunet.preprocess import Prepared, assemble, gather_context, preprocess, restore
from attunet.spec import PreprocessSpec
from attunet.tiles import Network, tiled
from attunet.volume import Volume

__all__ = ["Network", "predict_prepared", "predict_volume"]

MAX_BATCH_PIXELS = 8 * 512 * 512  # of one channel


def predict_volume(network: Network, volume: Volume, spec: PreprocessSpec, *, batch_size: int = 8) -> np.ndarray:
    """Class indices uint8 `(X, Y, Z)` on the volume's own grid.

    network: any function from slices to logits, with height and width multiples of 16 as it gets them.
    Beyond the prepared volume, memory holds one batch at a time.
    Raises what `preprocess` raises, and RunError for logits that are not finite.
    """
    return predict_prepared(network, preprocess(volume, spec), spec, batch_size=batch_size)


def predict_prepared(network: Network, prepared: Prepared, spec: PreprocessSpec, *, batch_size: int = 8) -> np.ndarray:
    """The second half of `predict_volume`, for a volume that `preprocess` has prepared already.

    Batches get smaller where slices are large, and slices beyond `tiles.MAX_PIXELS` are run in tiles.
    """
    grid, run = prepared.grid, tiled(network)
    batch_size = max(1, min(batch_size, MAX_BATCH_PIXELS // (grid.window[0] * grid.window[1])))
    slices = np.empty((grid.num_slices, *grid.plane_shape), dtype=np.uint8)
    for start in range(0, grid.num_slices, batch_size):
        chosen = np.arange(start, min(start + batch_size, grid.num_slices))
        batch = gather_context(prepared.slices, chosen, spec.context_slices)
        logits = run(batch)
        assert logits.shape == (len(batch), logits.shape[1], *batch.shape[2:]), (logits.shape, batch.shape)
        if not np.isfinite(logits).all():
            raise RunError(f"network: logits must be finite, those of slices {start} to {chosen[-1]} are not")
        slices[chosen] = restore(logits, grid)
    return assemble(slices, grid)
