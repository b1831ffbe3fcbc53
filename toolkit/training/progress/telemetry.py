"""Speed of a training, and its share of the device's rate. Nothing here waits for the device inside a step."""

import time
from collections import deque
from dataclasses import dataclass
from itertools import pairwise

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from attunet.device.memory import peak_memory_mb, synchronize

PHASES = ("data", "augment", "compute")
MARKS_KEPT = 4096  # length of the step clock's history, from which the shares are computed
MATMUL_SIDE = {"cuda": 8192, "cpu": 1024}
MATMUL_SECONDS = 0.1
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

Stamp = torch.cuda.Event | float


@dataclass(frozen=True)
class Speed:
    """Throughput over all processes; shares and memory of this process.

    Args:
        slices_per_s: training slices per second.
        data_share: fraction of the steps' time spent waiting for data; None without a step.
        augment_share: fraction of the steps' time spent in augmentation; None without a step.
        flops_per_s: operations of the network's matrix products and convolutions, forward and backward.
        matmul_share: `flops_per_s` as a fraction of the devices' measured matmul rate.
        peak_memory_mb: see `attunet.device.memory.peak_memory_mb`.
    """

    slices_per_s: float
    data_share: float | None
    augment_share: float | None
    flops_per_s: float
    matmul_share: float
    peak_memory_mb: float | None

    def describe(self) -> str:
        parts = [f"{self.slices_per_s:.1f} slices/s"]
        for share, activity in ((self.data_share, "waiting for data"), (self.augment_share, "in augmentation")):
            parts += [f"{100 * share:.1f} % {activity}"] if share is not None else []
        rate = 100 * self.matmul_share
        parts.append(f"{self.flops_per_s / 1e12:.3g} TFLOP/s ({rate:.1f} % of the matmul rate)")
        if self.peak_memory_mb is not None:
            parts.append(f"peak memory {self.peak_memory_mb:.0f} MB")
        return ", ".join(parts)


class StepClock:
    """Clock of the phases of a step, with CUDA events on a GPU and the processor's clock elsewhere.

    On a GPU, a phase starts when the device has finished the work queued before it, so waiting for data while the
    device is busy counts as no time.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: deque[tuple[str, Stamp]] = deque(maxlen=MARKS_KEPT)

    def mark(self, phase: str) -> None:
        """Attribute the time since the last mark to `phase`; names outside `PHASES` are not counted."""
        stamp: Stamp = time.perf_counter()
        if self._on_gpu:
            stamp = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            stamp.record()
        self._marks.append((phase, stamp))

    def read(self) -> dict[str, float]:
        """Return the seconds of each phase since the last call; the device must have finished its work."""
        seconds = dict.fromkeys(PHASES, 0.0)
        for (_, before), (phase, after) in pairwise(self._marks):
            if phase in seconds:
                seconds[phase] += _seconds_between(before, after)
        self._marks.clear()
        return seconds


class Telemetry:
    """Speed between two readings and over the run; `mark` is `StepClock.mark`.

    Each step adds its slices over all processes to `new_slices`.
    """

    def __init__(self, accelerator: Accelerator, flops_per_slice: int) -> None:
        self._device, self._processes = accelerator.device, accelerator.num_processes
        self._clock = StepClock(self._device)
        self.mark = self._clock.mark
        self.flops_per_slice = flops_per_slice
        self.matmul_flops_per_s = measure_matmul_rate(self._device, str(accelerator.mixed_precision))
        self.forget()

    def restart(self) -> None:
        """Exclude the time since the last reading, which was not spent on training steps."""
        self._clock.read()
        self._since, self.new_slices = time.perf_counter(), 0

    def forget(self) -> None:
        """Exclude all steps so far, from `overall` too."""
        self._phases = dict.fromkeys(PHASES, 0.0)
        self._slices, self._seconds = 0, 0.0
        self.restart()

    def read(self) -> Speed:
        """Return the speed since the last reading or restart."""
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        slices, self.new_slices = self.new_slices, 0
        phases = self._clock.read()
        self._slices, self._seconds = self._slices + slices, self._seconds + seconds
        self._phases = {name: self._phases[name] + value for name, value in phases.items()}
        return self._speed(slices, seconds, phases)

    def overall(self) -> Speed:
        """Return the speed over everything read so far."""
        return self._speed(self._slices, self._seconds, self._phases)

    def _speed(self, slices: int, seconds: float, phases: dict[str, float]) -> Speed:
        total = sum(phases.values())
        rate = slices / seconds if seconds > 0 else 0.0
        flops = rate * self.flops_per_slice
        return Speed(
            slices_per_s=rate,
            data_share=phases["data"] / total if total > 0 else None,
            augment_share=phases["augment"] / total if total > 0 else None,
            flops_per_s=flops,
            matmul_share=flops / self.matmul_flops_per_s / self._processes,
            peak_memory_mb=peak_memory_mb(self._device),
        )


def training_flops(network: nn.Module, in_channels: int, size: tuple[int, int]) -> int:
    """Count the floating-point operations of matrix products and convolutions, forward and backward, for one slice
    `(in_channels, H, W)`; on meta tensors, which takes milliseconds and no memory.
    """
    meta = {name: value.detach().to("meta") for name, value in network.state_dict(keep_vars=True).items()}
    for name, _ in network.named_parameters():
        meta[name].requires_grad_()
    counter = FlopCounterMode(display=False)
    with counter:
        torch.func.functional_call(network, meta, torch.empty((1, in_channels, *size), device="meta")).sum().backward()
    return int(counter.get_total_flops())


def measure_matmul_rate(device: torch.device, mixed_precision: str) -> float:
    """Measure the FLOP/s of square matrix products on this device in the training's precision."""
    side = MATMUL_SIDE["cuda" if device.type == "cuda" else "cpu"]
    dtype = DTYPES.get(mixed_precision, torch.float32)
    left, right = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    out = left @ right  # the first call initialises the library
    clock, count, began = StepClock(device), 0, time.perf_counter()
    clock.mark("start")
    while not count or time.perf_counter() - began < MATMUL_SECONDS:
        torch.mm(left, right, out=out)
        count += 1
        if count % 16 == 0:
            synchronize(device)
    clock.mark("compute")
    synchronize(device)
    return 2.0 * side**3 * count / clock.read()["compute"]


def _seconds_between(before: Stamp, after: Stamp) -> float:
    if isinstance(before, float) or isinstance(after, float):
        return float(after) - float(before)  # type: ignore[arg-type]  # one clock gives all stamps
    return float(before.elapsed_time(after)) / 1000
