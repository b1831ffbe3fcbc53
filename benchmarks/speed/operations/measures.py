"""Time and memory of operations at the levels of a network, beside a copy of as many bytes, on the CPU and on a GPU."""

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from attunet.benchmarks.evaluation.results_table import Json
from attunet.benchmarks.evaluation.timing import time_interleaved
from attunet.benchmarks.speed.program import add_device, percentile_fields, program_parser, seconds_of
from attunet.errors import InputError

Call = Callable[[], object]
FLUSH_BYTES = 512 * 2**20  # more than the second-level cache of any GPU
MIN_GPU_RUNS, MAX_GPU_RUNS = 20, 500
SLEEP_CYCLES = 4_000_000  # about two milliseconds: longer than it takes to queue a gate
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MODES = ("inference", "training")
COLUMNS = {
    "": "{name}",
    "mode": "{mode}",
    "by": "{by}",
    "ms p20": "{ms_p20:.3f}",
    "p50": "{ms_p50:.3f}",
    "p80": "{ms_p80:.3f}",
    "x eager": "{times_as_fast_as_eager:.2f}",
    "peak MB": "{peak_mb:.1f}",
    "GB/s": "{gb_per_s:.1f}",
    "of copy": "{share_of_copy:.0%}",
}


@dataclass(frozen=True)
class Settings:
    """The network is `width` wide at its finest level; `seconds` is the time for each measurement."""

    device: str
    width: int
    size: int
    batch_size: int
    dtype: str
    seconds: float

    def shape(self, level: int) -> tuple[int, int, int, int]:
        """Features `(N, C, H, W)` of a level."""
        side = self.size // 2**level
        return self.batch_size, self.width * 2**level, side, side

    def noise(self, level: int) -> Tensor:
        """Features of a level, channels last."""
        features = torch.randn(self.shape(level), device=self.device, dtype=DTYPES[self.dtype])
        return features.to(memory_format=torch.channels_last)


def settings_parser(description: str | None) -> argparse.ArgumentParser:
    """The options of `Settings`, and --no-compile."""
    parser = program_parser(description)
    add_device(parser)
    parser.add_argument("--width", type=int, default=64, help="channels of the first level")
    parser.add_argument("--size", type=int, default=256, help="height and width of a slice, a multiple of 16")
    parser.add_argument("--batch-size", type=int, help="slices; 16 on a GPU, 2 on the CPU")
    parser.add_argument("--dtype", choices=DTYPES, help="of the pixels; bfloat16 on a GPU, float32 on the CPU")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    return parser


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Raises InputError for a size that does not fit the network, and for a device that is not there."""
    if arguments.size % 16 or arguments.size < 16:
        raise InputError(f"--size: must be a multiple of 16, got {arguments.size}")
    on_gpu = arguments.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise InputError("--device: must be cpu where torch finds no CUDA device, got cuda")
    return Settings(
        device=arguments.device,
        width=arguments.width,
        size=arguments.size,
        batch_size=arguments.batch_size or (16 if on_gpu else 2),
        dtype=arguments.dtype or ("bfloat16" if on_gpu else "float32"),
        seconds=arguments.seconds,
    )


def measure_level(calls: Mapping[str, Call], settings: Settings, level: int, mode: str, moved: int) -> list[Json]:
    """Rows of the calls and of a copy that reads and writes `moved` bytes, as the operation must.

    Example:
        >>> measure_level({"triton": call}, settings, 0, "inference", 2 * x.nbytes)  # doctest: +SKIP
    """
    beside = {**calls, "copy": _copy_call(moved, settings.device)}
    rows = measure_calls(beside, settings.device, settings.seconds)
    copy_ms = rows[-1]["ms_p50"]
    shape = settings.shape(level)
    about = {"name": f"{shape[1]} at {shape[3]}²", "level": level, "channels": shape[1], "shape": list(shape)}
    about |= {"mode": mode, "bytes": moved}
    return [
        {**about, **row, "gb_per_s": moved / 1e6 / row["ms_p50"], "share_of_copy": copy_ms / row["ms_p50"]}
        for row in rows
    ]


def _copy_call(moved: int, device: str) -> Call:
    """A call that copies half of `moved` bytes, so that it reads and writes `moved` in all."""
    source = torch.ones(moved // 2, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return lambda: target.copy_(source)


def _time_on_gpu(calls: Sequence[Call], *, seconds: float) -> list[np.ndarray]:
    """Seconds of every run of each call, between events on the device; each call gets about `seconds`.

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
    first_s = {name: seconds_of(call) for name, call in calls.items()}
    in_turns = _time_on_gpu if device == "cuda" else time_interleaved
    times = dict(zip(calls, in_turns(list(calls.values()), seconds=seconds), strict=True))
    rows = []
    for name, times_s in times.items():
        peak = None if name == "copy" else peak_bytes(calls[name], device) / 1e6
        row = {"by": name, "runs": len(times_s), **percentile_fields(1000 * times_s, "ms_p{}")}
        speed_up = float(np.median(times["eager"]) / np.median(times_s))
        rows.append({**row, "times_as_fast_as_eager": speed_up, "peak_mb": peak, "first_call_s": first_s[name]})
    return rows


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
