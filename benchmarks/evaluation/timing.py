"""Timing of several calls in turns, so that a drift of the machine affects all of them equally."""

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from attunet.metrics.results import Latency

WARM_UP_RUNS = 20
TURNS = 10


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
    calls: Sequence[Callable[[], object]], *, seconds: float = math.inf, min_runs: int = 3, max_runs: int | None = None
) -> list[np.ndarray]:
    """Times calls in `TURNS` turns. Each turn begins with an untimed run,
    which fills the caches and lets other threads come to rest.

    Args:
        seconds: a call ends after about so many, untimed runs included, and at least `min_runs` timed runs.
        max_runs: a call ends after so many timed runs at the latest.

    Returns:
        For each call the seconds of its timed runs.
    """
    assert math.isfinite(seconds) or max_runs is not None, "seconds or max_runs must limit the runs"
    timed: list[list[float]] = [[] for _ in calls]
    spent = [0.0] * len(calls)
    for call in calls:
        _warm_up(call, seconds / 5)
    while waiting := [i for i in range(len(calls)) if _goes_on(len(timed[i]), spent[i], seconds, min_runs, max_runs)]:
        for i in waiting:
            limit = None if max_runs is None else min(max_runs - len(timed[i]), math.ceil(max_runs / TURNS))
            began = time.perf_counter()
            timed[i].extend(_turn(calls[i], seconds / TURNS, limit))
            spent[i] += time.perf_counter() - began
    return [np.array(runs) for runs in timed]


def _goes_on(runs: int, spent: float, seconds: float, min_runs: int, max_runs: int | None) -> bool:
    if max_runs is not None and runs >= max_runs:
        return False
    return runs < min_runs or spent < seconds


def _warm_up(call: Callable[[], object], seconds: float) -> None:
    began = time.perf_counter()
    for run in range(WARM_UP_RUNS):
        call()
        if run and time.perf_counter() - began > seconds:
            return


def _turn(call: Callable[[], object], seconds: float, max_runs: int | None) -> list[float]:
    runs: list[float] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        began = time.perf_counter()
        call()
        while not runs or (time.perf_counter() - began < seconds and (max_runs is None or len(runs) < max_runs)):
            start = time.perf_counter()
            call()
            runs.append(time.perf_counter() - start)
    finally:
        if collecting:
            gc.enable()
    return runs
