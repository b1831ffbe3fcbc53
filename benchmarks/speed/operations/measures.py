"""Time and memory of operations, on the CPU and on a GPU."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from attunet.benchmarks.evaluation.results_table import Json
from attunet.benchmarks.evaluation.timing import time_interleaved
from attunet.benchmarks.speed.program import percentile_fields

Call = Callable[[], object]
FLUSH_BYTES = 512 * 2**20  # more than the second-level cache of any GPU
MIN_GPU_RUNS, MAX_GPU_RUNS = 20, 500
SLEEP_CYCLES = 4_000_000  # about two milliseconds: longer than it takes to queue a gate


def time_calls(calls: Sequence[Call], device: str, seconds: float) -> list[np.ndarray]:
    """Seconds of every run of each call; the calls take turns, and each gets about `seconds`."""
    return _time_on_gpu(calls, seconds) if device == "cuda" else time_interleaved(calls, seconds=seconds)


def _time_on_gpu(calls: Sequence[Call], seconds: float) -> list[np.ndarray]:
    """Time between events on the device.

    Before each run a large buffer is written, which empties the cache as the rest of a network would, and the device
    sleeps while the processor queues the call, so that only the device is measured.
    """
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    warm = [_gpu_runs([call], flush, MIN_GPU_RUNS)[0] for call in calls]
    runs = int(np.clip(seconds / max(np.median(w) for w in warm), MIN_GPU_RUNS, MAX_GPU_RUNS))
    return _gpu_runs(calls, flush, runs)


def _gpu_runs(calls: Sequence[Call], flush: Tensor, runs: int) -> list[np.ndarray]:
    events = [
        [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(runs)]
        for _ in calls
    ]
    for run in range(runs):
        for call, of_call in zip(calls, events, strict=True):
            flush.zero_()
            torch.cuda._sleep(SLEEP_CYCLES)
            of_call[run][0].record()
            call()
            of_call[run][1].record()
    torch.cuda.synchronize()
    return [np.array([start.elapsed_time(end) / 1000 for start, end in of_call]) for of_call in events]


def measure_calls(calls: Mapping[str, Call], device: str, seconds: float) -> list[Json]:
    """One row for each call: time, speed-up over the call named `eager`, peak memory.
    The first run, which may compile, is timed apart.
    """
    first_s = {}
    for name, call in calls.items():
        began = time.perf_counter()
        call()
        first_s[name] = time.perf_counter() - began
    times = dict(zip(calls, time_calls(list(calls.values()), device, seconds), strict=True))
    rows = []
    for name, times_s in times.items():
        peak = None if name == "copy" else peak_bytes(calls[name], device) / 1e6
        row = {"by": name, "runs": len(times_s), **percentile_fields(1000 * times_s, "ms_p{}")}
        speed_up = float(np.median(times["eager"]) / np.median(times_s))
        rows.append({**row, "times_as_fast_as_eager": speed_up, "peak_mb": peak, "first_call_s": first_s[name]})
    return rows


def call_cells(row: Json) -> list[str]:
    """Cells of a row of `measure_calls`."""
    times = [f"{row[key]:.3f}" for key in ("ms_p20", "ms_p50", "ms_p80")]
    peak = "" if row["peak_mb"] is None else f"{row['peak_mb']:.1f}"
    return [row["mode"], row["by"], *times, f"{row['times_as_fast_as_eager']:.2f}", peak]


def held_bytes(step: Call, network: nn.Module) -> int:
    """Bytes that forward passes in `step` save for their backward passes, without the network's own parameters."""
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step()
    return sum(kept.values())


def peak_bytes(call: Call, device: str) -> int:
    """Largest number of bytes of tensors that the call holds at once, beyond those allocated before it."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with (
        _without_stderr(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded,
    ):
        call()
    results = recorded.profiler.kineto_results
    changes = sorted((event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]")
    held = np.cumsum([size for _, size in changes]) if changes else np.zeros(1)
    return int(held.max())


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Silences the profiler's C++ library, which prints each start and stop; errors are still raised."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
