"""Calls are timed in turns, and each turn warms up before it counts."""

import itertools
from types import SimpleNamespace

import pytest

from attunet.benchmarks.evaluation import timing
from attunet.benchmarks.evaluation.timing import Timings, time_interleaved


def test_calls_take_turns_and_all_get_enough_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that only reading moves on: on a busy machine a call may take longer than all the turns.
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=itertools.count(0.0, 1e-4).__next__))
    order: list[str] = []
    timed = time_interleaved([lambda: order.append("a"), lambda: order.append("b")], seconds=0.02)
    assert all(len(runs) >= timing.MIN_RUNS for runs in timed)
    switches = sum(one != other for one, other in itertools.pairwise(order))
    assert switches > 4  # a machine that slows down half way slows both
    assert order.count("a") > len(timed[0])  # warm-up and the first run of each turn do not count


def test_as_many_runs_as_asked_for_and_still_in_turns() -> None:
    order: list[int] = []
    timed = time_interleaved([lambda i=i: order.append(i) for i in range(3)], max_runs=50)  # type: ignore[misc]
    assert [len(runs) for runs in timed] == [50, 50, 50]
    switches = sum(one != other for one, other in itertools.pairwise(order))
    assert switches > 20, "quick calls must not have all their runs in one turn"


def test_percentiles_and_throughput_of_known_times() -> None:
    timings = Timings(4, time_interleaved([lambda: None], seconds=0.001)[0] * 0 + 0.01)
    assert timings.latency_ms()["p50"] == timings.latency_ms()["p99"] == 10
    assert round(timings.slices_per_s) == 400
