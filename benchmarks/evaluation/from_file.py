"""A volume from file to file, and where its time goes."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from attunet.benchmarks.evaluation.models import Candidate
from attunet.io.writers import write_labels
from attunet.sources.read_case import read_image
from attunet.store import Case, Store
from attunet.volumes.predict import predict_prepared
from attunet.volumes.slices import preprocess


class _TimedNetwork:
    """A network that adds up how long it took."""

    def __init__(self, network: Callable[[np.ndarray], np.ndarray]) -> None:
        self.network, self.seconds = network, 0.0

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        start = time.perf_counter()
        logits = self.network(slices)
        self.seconds += time.perf_counter() - start
        return logits


def predict_from_file(candidate: Candidate, store: Store, case: Case, source: Path | None) -> tuple[np.ndarray, dict[str, float]]:
    """Class indices (X, Y, Z) on the native grid, and the milliseconds of each part of the way from file to file."""
    network, root = _TimedNetwork(candidate.network), source or store.source_root
    with tempfile.TemporaryDirectory() as folder:
        marks = [time.perf_counter()]
        volume = read_image(tuple(root / file for file in case.image_files), frames=store.frames)
        marks.append(time.perf_counter())
        prepared = preprocess(volume, candidate.spec)
        marks.append(time.perf_counter())
        indices = predict_prepared(network, prepared, candidate.spec, postprocessing=candidate.postprocessing)
        marks.append(time.perf_counter())
        write_labels(Path(folder) / "prediction.nii.gz", indices, candidate.classes, volume)
        marks.append(time.perf_counter())
    read, prepare, predict, write = (float(v) for v in np.diff(marks))
    seconds = {"read": read, "prepare": prepare, "network": network.seconds, "finish": predict - network.seconds, "write": write}
    return indices, {part: 1000 * value for part, value in seconds.items()}
