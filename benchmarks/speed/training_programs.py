"""Four ways to train on one store, each in a process of its own: `python -m attunet.benchmarks.speed.training_programs TASK.json`.

- `attunet`: this toolkit as `attunet train` runs it: slices on the device, augmented there, bf16 where fast, channels-last.
- `attunet-streamed`: the same with the slices streamed from the store.
- `plain`: a script as it is usually written: one NIfTI file per sample and per label, opened when it is asked for, fp32, NCHW, Adam,
  `.item()` after every step, no augmentation. The network is ours, the very same.
- `monai`: MONAI's CacheDataset and its DataLoader, its random transforms, its AttentionUnet, its loss, autocast to bf16.

Each says how long every step took and how long it waited for data; one JSON line.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn

from attunet.config import ResolvedConfig
from attunet.device.accelerator import make_accelerator
from attunet.store import Store


@dataclass(frozen=True)
class Task:
    """What one process is to measure; slices has `CASE-0007-image.nii.gz` and `-label.nii.gz` for each slice of the training cases."""

    program: str
    store: str
    slices: str
    fold: int
    model: str
    width: int
    batch_size: int
    steps: int
    warm_up_steps: int
    workers: int
    dice: float | None  # train until this validation Dice, or `minutes`
    minutes: float
    settings: tuple[str, ...]


@dataclass
class Training:
    """A training that goes on step by step. `wait` is finished when the device is; `waited_s` sums what its data took."""

    step: Callable[[], None]
    wait: Callable[[], object]
    waited_s: Callable[[], float]
    network: nn.Module  # what is validated
    accelerator: Accelerator


def make(task: Task, store: Store, config: ResolvedConfig) -> Training:
    accelerator = make_accelerator(config.run)
    training, _ = store.split(task.fold)
    torch.manual_seed(0)
    makers = {"attunet": _attunet, "attunet-streamed": _attunet, "plain": _plain, "monai": _monai}
    return makers[task.program](task, store, training, config, accelerator)
