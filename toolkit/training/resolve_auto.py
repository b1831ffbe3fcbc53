"""Values for "auto" in a training's configuration, from the store's slices and the device."""

from collections.abc import Sequence

import numpy as np
import torch
from accelerate import Accelerator

from attunet.config import Config, ResolvedConfig
from attunet.device.accelerator import of_first_process
from attunet.store import Store
from attunet.training.optimization import MIN_DRAWN_SHARE

CPU_WIDTH, GPU_WIDTHS = 16, (64, 32)
CPU_BATCH, GPU_BATCH, MIN_BATCH = 8, 16, 2  # batch norm needs two slices
# Pixels of a batch; larger slices make smaller batches
CPU_BATCH_PIXELS, GPU_BATCH_PIXELS = 8 * 256 * 256, 16 * 512 * 512
EPOCHS = 100
CPU_STEPS, GPU_STEPS = (1500, 5000), (2500, 20_000)  # bounds of the number of steps
# Activations that a step keeps per pixel and channel of the first level: 12 there, half as many at each level below.
ACTIVATIONS_PER_PIXEL = 24
BYTES = 4


def resolve_auto(
    config: Config, store: Store, cases: list[str], accelerator: Accelerator, begun: ResolvedConfig | None
) -> ResolvedConfig:
    """Replace "auto" in width, batch, epochs and schedule; all processes get the values of the first.

    - width: 16 on a CPU; 64 on a GPU, or 32 where 64 would fill more than half of its memory.
    - batch: 8 slices on a CPU and 16 per process on GPUs; fewer if slices are large or the store has fewer.
    - epochs: 100, changed so that the training has 1500 to 5000 steps on a CPU and 2500 to 20 000 on a GPU. A step
      takes about as long for every data set, because the batch shrinks as slices grow. With partial labels the steps
      are divided by the share of labels that are there, so that every class is seen as often; at most four times as
      many.
    - schedule: trapezoid where `run.minutes` sets the number of steps, because they can be corrected while the learning
      rate has its peak; one_cycle for others.

    Args:
        cases: the training cases.
        begun: the configuration of the run to resume, whose values are kept on any device; None for a new run.

    Example:
        >>> resolve_auto(Config(), store, ["01", "02"], Accelerator(cpu=True), None).model.base_width  # doctest: +SKIP
    """
    device, num_processes = accelerator.device, accelerator.num_processes
    if begun is not None:
        width, batch, epochs = begun.model.base_width, begun.optim.batch_size, begun.optim.epochs
        resolved = config.resolve(base_width=width, batch_size=batch, epochs=epochs, schedule=begun.optim.schedule)
    else:
        memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
        resolved = _resolve(config, store, cases, memory, num_processes)
    return of_first_process(resolved)


def _resolve(config: Config, store: Store, cases: list[str], memory: int | None, num_processes: int) -> ResolvedConfig:
    """Compute the values for "auto"; `memory` is that of the GPU in bytes, None on a CPU."""
    slices = sum(store.case(case).num_slices for case in cases)
    pixels = store.spec.size[0] * store.spec.size[1]
    if memory is None:
        max_batch, max_pixels, (min_steps, max_steps) = CPU_BATCH, CPU_BATCH_PIXELS, CPU_STEPS
    else:
        max_batch, max_pixels = GPU_BATCH * num_processes, GPU_BATCH_PIXELS * num_processes
        min_steps, max_steps = GPU_STEPS
    fitting = max(num_processes, MIN_BATCH, min(max_batch, max_pixels // pixels, slices))
    batch = fitting if isinstance(config.optim.batch_size, str) else config.optim.batch_size
    width = CPU_WIDTH
    if memory is not None:
        share = -(-batch // num_processes) * pixels * ACTIVATIONS_PER_PIXEL * BYTES
        width = next((w for w in GPU_WIDTHS if share * w <= memory / 2), GPU_WIDTHS[-1])
    steps = min(max(EPOCHS * slices / batch, min_steps), max_steps) / max(_drawn_share(store, cases), MIN_DRAWN_SHARE)
    schedule = "trapezoid" if config.run.minutes else "one_cycle"
    epochs = round(steps * batch / slices, 2)
    return config.resolve(base_width=width, batch_size=batch, epochs=epochs, schedule=schedule)


def _drawn_share(store: Store, cases: Sequence[str]) -> float:
    """Return the mean share of foreground classes that were drawn in a slice of the cases; 1 without partial labels."""
    shares = [store.drawn_classes(case)[1:].mean() for case in cases]
    return float(np.average(shares, weights=[store.case(case).num_slices for case in cases]))
