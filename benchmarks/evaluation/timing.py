"""Timing: several calls in turns, so that a drift of the machine affects all of them equally, and the steps of a
prediction from file to file.
"""

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from attunet.io.writers import write_labels
from attunet.manifest import Case
from attunet.metrics.results import Latency
from attunet.sources.case_files import without_names
from attunet.sources.read_case import read_image
from attunet.store import Store
from attunet.system.private_folder import PrivateFolder
from attunet.volumes.model import Model
from attunet.volumes.oriented_volume import OrientedVolume
from attunet.volumes.postprocess import postprocess
from attunet.volumes.predict import predict_prepared
from attunet.volumes.spec import UNTOUCHED

WARM_UP_RUNS = 20
TURNS = 10
MIN_RUNS = 3


@dataclass(frozen=True, eq=False)
class Timings:
    """Seconds of each timed run of a call for `batch_size` slices."""

    batch_size: int
    seconds: np.ndarray

    def latency_ms(self) -> Latency:
        p50, p95, p99 = (float(v) for v in np.percentile(1000 * self.seconds, (50, 95, 99)))
        return {"p50": p50, "p95": p95, "p99": p99, "runs": len(self.seconds)}

    @property
    def slices_per_s(self) -> float:
        return float(self.batch_size * len(self.seconds) / self.seconds.sum())


def time_interleaved(
    calls: Sequence[Callable[[], object]], *, seconds: float = math.inf, max_runs: float = math.inf
) -> list[np.ndarray]:
    """Times calls in `TURNS` turns; gives for each the seconds of its timed runs. Each turn begins with an untimed run,
    which fills the caches and lets other threads come to rest.

    Args:
        seconds: a call ends after about so many, untimed runs included, and at least `MIN_RUNS` timed runs.
        max_runs: a call ends after so many timed runs at the latest.
    """
    assert math.isfinite(min(seconds, max_runs)), "seconds or max_runs must limit the runs"
    timed: list[list[float]] = [[] for _ in calls]
    spent = [0.0] * len(calls)
    most = math.ceil(max_runs / TURNS) if math.isfinite(max_runs) else math.inf  # runs of one turn
    for call in calls:
        _warm_up(call, seconds / 5)

    def goes_on(number: int) -> bool:
        runs = len(timed[number])
        return runs < max_runs and (runs < MIN_RUNS or spent[number] < seconds)

    while waiting := [number for number in range(len(calls)) if goes_on(number)]:
        for number in waiting:
            began = time.perf_counter()
            limit = min(max_runs - len(timed[number]), most)
            timed[number] += _turn(calls[number], seconds / TURNS, limit)
            spent[number] += time.perf_counter() - began
    return [np.array(runs) for runs in timed]


def _warm_up(call: Callable[[], object], seconds: float) -> None:
    began = time.perf_counter()
    for run in range(WARM_UP_RUNS):
        call()
        if run and time.perf_counter() - began > seconds:
            return


def _turn(call: Callable[[], object], seconds: float, max_runs: float) -> list[float]:
    runs: list[float] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        began = time.perf_counter()
        call()
        while not runs or (time.perf_counter() - began < seconds and len(runs) < max_runs):
            start = time.perf_counter()
            call()
            runs.append(time.perf_counter() - start)
    finally:
        if collecting:
            gc.enable()
    return runs


def predict_from_file(model: Model, store: Store, case: Case) -> tuple[np.ndarray, dict[str, float]]:
    """Reads a case's image files, segments the volume and writes the label map to a temporary file.

    Returns:
        Class indices uint8 `(X, Y, Z)` on the native grid, and the milliseconds of each step: `read`, `prepare`,
        `network`, `finish` (resampling to the native grid and post-processing) and `write`.
    """
    files, _ = store.files_of(case.name)
    network_s = 0.0

    def network(slices: np.ndarray) -> np.ndarray:
        nonlocal network_s
        start = time.perf_counter()
        logits = model.logits(slices)
        network_s += time.perf_counter() - start
        return logits

    with PrivateFolder() as folder:
        marks = [time.perf_counter()]
        with without_names(f"{store.path}: {case.name}", store.hides_names):
            volume = read_image(files, choices=store.choices)
        marks.append(time.perf_counter())
        prepared = model.prepare(volume)
        marks.append(time.perf_counter())
        if isinstance(prepared, OrientedVolume):  # the graph resamples too, so its time is that of the network
            raw = model.predict_prepared(prepared, postprocessing=UNTOUCHED)
            network_s = time.perf_counter() - marks[-1]
            indices = postprocess(raw, len(model.classes), volume.spacing, model.postprocessing)
        else:
            indices = predict_prepared(network, prepared, postprocessing=model.postprocessing)
        marks.append(time.perf_counter())
        write_labels(folder.path / "prediction.nii.gz", indices, model.classes, volume)
        marks.append(time.perf_counter())
    read, prepare, predict, write = (float(v) for v in np.diff(marks))
    seconds = {"read": read, "prepare": prepare, "network": network_s, "finish": predict - network_s, "write": write}
    return indices, {step: 1000 * value for step, value in seconds.items()}
