"""What `"auto"` means in a training's configuration: values from the store's own slices and from the device."""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from attunet.config import Config, ResolvedConfig
from attunet.store import Store

CPU_WIDTH, GPU_WIDTHS = 16, (64, 32)
CPU_BATCH, GPU_BATCH, LEAST_BATCH = 8, 16, 2  # batch norm wants two slices
CPU_BATCH_PIXELS, GPU_BATCH_PIXELS = 8 * 256 * 256, 16 * 512 * 512  # larger slices come in smaller batches
EPOCHS = 100
CPU_STEPS, GPU_STEPS = (1500, 5000), (2500, 20_000)
# Values that a training step keeps per pixel and channel of the first level: twelve maps there, half as many at each level below.
KEPT_PER_PIXEL = 24
BYTES = 4


def settle(config: Config, store: Store, cases: list[str], accelerator: Accelerator, begun: Mapping[str, Any] | None) -> ResolvedConfig:
    """The configuration without `auto` in width, batch and epochs. begun: the configuration of the training that is continued, as JSON.

    A training that has begun keeps its values, also on another device. Every process gets those of the first.

    - width: 16 on a CPU; 64 on a GPU, or 32 where 64 would fill its memory by more than half.
    - batch: 8 slices on a CPU and 16 per process on GPUs, fewer where slices are large, and never more than there are.
    - epochs: 100, but at least so many that small data sets get 1500 steps (GPU: 2500), and at most 5000 steps (GPU: 20 000):
      a CPU step takes about as long for every data set, because the batch shrinks as slices grow.
    """
    if begun is not None:
        model, optim = begun["model"], begun["optim"]
        resolved = config.resolve(base_width=model["base_width"], batch_size=optim["batch_size"], epochs=optim["epochs"])
    else:
        memory = torch.cuda.get_device_properties(accelerator.device).total_memory if accelerator.device.type == "cuda" else None
        resolved = _choose(config, store, cases, memory, accelerator.num_processes)
    return broadcast_object_list([resolved])[0] if accelerator.num_processes > 1 else resolved


def _choose(config: Config, store: Store, cases: list[str], memory: int | None, num_processes: int) -> ResolvedConfig:
    """memory: of the GPU in bytes, None on a CPU."""
    slices = sum(store.case(case).num_slices for case in cases)
    pixels = store.spec.size[0] * store.spec.size[1]
    most, room = (CPU_BATCH, CPU_BATCH_PIXELS) if memory is None else (GPU_BATCH * num_processes, GPU_BATCH_PIXELS * num_processes)
    fitting, asked = max(num_processes, LEAST_BATCH, min(most, room // pixels, slices)), config.optim.batch_size
    batch = fitting if isinstance(asked, str) else asked
    width = CPU_WIDTH
    if memory is not None:
        share = -(-batch // num_processes) * pixels * KEPT_PER_PIXEL * BYTES
        width = next((w for w in GPU_WIDTHS if share * w <= memory / 2), GPU_WIDTHS[-1])
    fewest, longest = CPU_STEPS if memory is None else GPU_STEPS
    steps = min(max(EPOCHS * slices / batch, fewest), longest)
    return config.resolve(base_width=width, batch_size=batch, epochs=round(steps * batch / slices, 2))
