"""A volume through a network, slice by slice: one piece of code for PyTorch, every ONNX provider, validation and deployment."""

import numpy as np

from attunet.components import postprocess
from attunet.errors import RunError
from attunet.preprocess import Prepared, VolumeSlices, assemble, gather_context, restore
from attunet.spec import UNTOUCHED, Postprocessing, PreprocessSpec
from attunet.tiles import Network, tiled
from attunet.volume import Volume

__all__ = ["Network", "predict_prepared", "predict_volume"]

MAX_BATCH_PIXELS = 8 * 512 * 512  # of one channel


def predict_volume(
    network: Network, volume: Volume, spec: PreprocessSpec, *, batch_size: int = 8, postprocessing: Postprocessing = UNTOUCHED
) -> np.ndarray:
    """Class indices uint8 `(X, Y, Z)` on the volume's own grid.

    network: any function from slices to logits, with height and width multiples of 16 as it gets them.
    postprocessing: how the label map is finished.
    Beyond the volume and its label map, memory holds one batch at a time, however many slices there are.
    Raises what `VolumeSlices` raises, and RunError for logits that are not finite.
    """
    prepared = VolumeSlices(volume, spec)
    return predict_prepared(network, prepared, spec, batch_size=batch_size, postprocessing=postprocessing)


def predict_prepared(
    network: Network,
    prepared: Prepared | VolumeSlices,
    spec: PreprocessSpec,
    *,
    batch_size: int = 8,
    postprocessing: Postprocessing = UNTOUCHED,
) -> np.ndarray:
    """The second half of `predict_volume`, for a volume that `preprocess` has prepared already, or one that prepares itself by and by.

    Batches get smaller where slices are large, and slices beyond `tiles.MAX_PIXELS` are run in tiles.
    """
    slices, grid = (prepared if isinstance(prepared, VolumeSlices) else prepared.slices), prepared.grid
    run, reach = tiled(network), spec.context_slices // 2
    batch_size = max(1, min(batch_size, MAX_BATCH_PIXELS // (grid.window[0] * grid.window[1])))
    labels = np.empty((grid.num_slices, *grid.plane_shape), dtype=np.uint8)
    for start in range(0, grid.num_slices, batch_size):
        chosen = np.arange(start, min(start + batch_size, grid.num_slices))
        first = max(0, start - reach)
        batch = gather_context(slices[first : chosen[-1] + 1 + reach], chosen - first, spec.context_slices)
        logits = run(batch)
        assert logits.shape == (len(batch), logits.shape[1], *batch.shape[2:]), (logits.shape, batch.shape)
        if not np.isfinite(logits).all():
            raise RunError(f"network: logits must be finite, those of slices {start} to {chosen[-1]} are not")
        labels[chosen] = restore(logits, grid)
    return postprocess(assemble(labels, grid), logits.shape[1], grid.native_spacing, postprocessing)
