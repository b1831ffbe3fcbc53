"""Time of a prediction from file to file, step by step."""

import tempfile
import time
from pathlib import Path

import numpy as np

from attunet.io.writers import write_labels
from attunet.manifest import Case
from attunet.sources.read_case import read_image
from attunet.store import Store
from attunet.volumes.model import Model
from attunet.volumes.oriented_volume import OrientedVolume
from attunet.volumes.postprocess import postprocess
from attunet.volumes.predict import Network, predict_prepared
from attunet.volumes.spec import UNTOUCHED


class _TimedNetwork:
    """A network that adds up the time of its calls."""

    def __init__(self, network: Network) -> None:
        self.network, self.seconds = network, 0.0

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        start = time.perf_counter()
        logits = self.network(slices)
        self.seconds += time.perf_counter() - start
        return logits


def predict_from_file(
    model: Model, store: Store, case: Case, source: Path | None
) -> tuple[np.ndarray, dict[str, float]]:
    """Reads a case's image files, segments the volume and writes the label map to a temporary file.

    Args:
        source: where the store's source files are now, if they moved.

    Returns:
        Class indices uint8 `(X, Y, Z)` on the native grid, and the milliseconds of each step: `read`, `prepare`,
        `network`, `finish` (resampling to the native grid and post-processing) and `write`.
    """
    network, (files, _) = _TimedNetwork(model.logits), store.files_of(case.name, source)
    with tempfile.TemporaryDirectory() as folder:
        marks = [time.perf_counter()]
        volume = read_image(files, choices=store.choices)
        marks.append(time.perf_counter())
        prepared = model.prepare(volume)
        marks.append(time.perf_counter())
        if isinstance(prepared, OrientedVolume):  # the graph resamples too, so its time is that of the network
            raw, began = model.predict_prepared(prepared, postprocessing=UNTOUCHED), marks[-1]
            network.seconds = time.perf_counter() - began
            indices = postprocess(raw, len(model.classes), volume.spacing, model.postprocessing)
        else:
            indices = predict_prepared(network, prepared, model.spec, postprocessing=model.postprocessing)
        marks.append(time.perf_counter())
        write_labels(Path(folder) / "prediction.nii.gz", indices, model.classes, volume)
        marks.append(time.perf_counter())
    read, prepare, predict, write = (float(v) for v in np.diff(marks))
    seconds = {
        "read": read,
        "prepare": prepare,
        "network": network.seconds,
        "finish": predict - network.seconds,
        "write": write,
    }
    return indices, {step: 1000 * value for step, value in seconds.items()}
