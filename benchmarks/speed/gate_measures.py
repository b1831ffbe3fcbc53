"""Time and memory of one call, on the CPU and on a GPU."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from attunet.benchmarks.evaluation.timing import time_interleaved

Call = Callable[[], object]
FLUSH_BYTES = 512 * 2**20  # more than the second-level cache of any GPU
GPU_RUNS = (20, 500)  # fewest and most
SLEEP_CYCLES = 4_000_000  # about two milliseconds: longer than it takes to queue a gate


def time_calls(calls: Sequence[Call], device: str, seconds: float) -> list[np.ndarray]:
    """Seconds of every run of each call, taking turns; each call gets about `seconds`."""
    return _time_on_gpu(calls, seconds) if device == "cuda" else time_interleaved(calls, seconds=seconds)


def _time_on_gpu(calls: Sequence[Call], seconds: float) -> list[np.ndarray]:
    """Time between events on the device. Before each run a large buffer is written, which empties the cache as the rest of a network
    would, and the device sleeps while the processor queues the call: so the device alone is measured, as in a network, where the
    processor runs ahead."""
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    warm = [_gpu_runs([call], flush, GPU_RUNS[0])[0] for call in calls]
    runs = int(np.clip(seconds / max(np.median(w) for w in warm), *GPU_RUNS))
    return _gpu_runs(calls, flush, runs)


def _gpu_runs(calls: Sequence[Call], flush: Tensor, runs: int) -> list[np.ndarray]:
    events = [[(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(runs)] for _ in calls]
    for run in range(runs):
        for call, of_call in zip(calls, events, strict=True):
            flush.zero_()
            torch.cuda._sleep(SLEEP_CYCLES)
            of_call[run][0].record()
            call()
            of_call[run][1].record()
    torch.cuda.synchronize()
    return [np.array([start.elapsed_time(end) / 1000 for start, end in of_call]) for of_call in events]


def held_bytes(step: Call, network: nn.Module) -> int:
    """Bytes that the forward passes within `step` keep for their backward passes, besides the network's own parameters."""
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
    """The most bytes of tensors that the call holds at once, beyond those that were there before it."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with _without_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        call()
    results = recorded.profiler.kineto_results
    changes = sorted((event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]")
    held = np.cumsum([size for _, size in changes]) if changes else np.zeros(1)
    return int(held.max())


@contextmanager
def _without_stderr() -> Iterator[None]:
    """The profiler's library announces each start and stop there, from C++; errors are raised as ever."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
