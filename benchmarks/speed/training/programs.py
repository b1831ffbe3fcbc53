"""Five trainings on one store, each in a process of its own:
`python -m attunet.benchmarks.speed.training.programs TASK`.

- `attunet`: this toolkit as `attunet train` runs it: slices on the device, augmented there, bf16 where fast,
  channels-last.
- `attunet-streamed`: the same with the slices streamed from the store.
- `plain`: a script as it is usually written: one NIfTI file per sample and per label, opened when it is read,
  fp32, NCHW, Adam, `.item()` after every step, no augmentation. The network is ours, the very same.
- `monai`: MONAI's CacheDataset and its DataLoader, its random transforms, its AttentionUnet, its loss, autocast to
  bf16.
- `nnunet`: nnU-Net's own 2D trainer as its command runs it, with our batch size, where `nnunetv2` is installed.

The task is JSON. Each prints a line for every part of its start, and one for all steps and waiting for data.
"""

import dataclasses
import itertools
import json
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator

from attunet.benchmarks.evaluation.results_table import Json
from attunet.benchmarks.speed.training.nnunet import nnunet
from attunet.benchmarks.speed.training.others import Progress, Task, Timed, Training, monai, plain
from attunet.config import ResolvedConfig, load_config
from attunet.device.accelerator import make_accelerator
from attunet.device.memory import peak_memory_mb
from attunet.loading.choose import make_loader
from attunet.models import build_model
from attunet.store import Store, open_store
from attunet.training.trainer import Trainer


def _attunet(task: Task, store: Store, config: ResolvedConfig, accelerator: Accelerator) -> Training:
    tier = "streamed" if task.program == "attunet-streamed" else "resident"
    loader = make_loader(store, store.split(task.fold)[0], accelerator, config, tier=tier)
    take = Timed(loader.take)
    loader.take = take  # type: ignore[assignment, method-assign]
    network = build_model(config.model, store.spec.in_channels, len(store.classes))
    trainer, numbers = Trainer(network, loader, config, accelerator), itertools.count()
    if trainer._graph is not None:  # its steps gather the slices themselves, and wait for their numbers alone
        take = trainer._graph.fill = Timed(trainer._graph.fill)  # type: ignore[assignment, method-assign]

    def step() -> None:
        trainer.step(next(numbers))

    return Training(step, take, network, wait=trainer.read_losses)


MAKERS = {"attunet": _attunet, "attunet-streamed": _attunet, "plain": plain, "monai": monai}


def run(task: Task) -> Json:
    """Times a training. `steps` may be fewer than wanted; `seconds` and `waiting_s`, for data, are of all of them."""
    progress = Progress()
    progress.finish("imports")
    store = open_store(task.store)
    wanted = load_config(None, [*task.settings, f'model.name="{task.model}"'])
    config = dataclasses.replace(wanted, data=store.data_config).resolve(
        base_width=task.width, batch_size=task.batch_size, epochs=100
    )
    accelerator = make_accelerator(config.run)
    torch.manual_seed(0)
    if task.program == "nnunet":
        program = nnunet(task, Path(task.slices) / "nnunet", accelerator, progress)
    else:
        program = MAKERS[task.program](task, store, config, accelerator)
        progress.finish("network, loader")
    for number in range(task.warm_up_steps):
        program.step()
        if number in (0, task.warm_up_steps - 1):
            program.wait()
            progress.finish("warm-up" if number else "first step")
    waited, began, steps = program.take.seconds, time.monotonic(), 0
    while steps < task.steps and (task.limit_s is None or time.monotonic() - progress.began < task.limit_s):
        program.step()
        steps += 1
    program.wait()
    seconds = time.monotonic() - began
    return {
        "steps": steps,
        "seconds": seconds,
        "waiting_s": program.take.seconds - waited,
        "note": program.note,
        "num_parameters": sum(p.numel() for p in program.network.parameters()),
        "device": accelerator.device.type,
        "peak_memory_mb": peak_memory_mb(accelerator.device),
    }


def main() -> None:
    print(json.dumps(run(Task(**json.loads(sys.argv[1])))), flush=True)


if __name__ == "__main__":
    main()
