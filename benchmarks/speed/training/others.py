"""The trainings that attunet is compared with: a plain script, and MONAI."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, Dataset

from attunet.config import ResolvedConfig
from attunet.loading.transforms.spatial import SHIFT_FRACTION
from attunet.models import build_model
from attunet.store import Store
from attunet.system.workers import process_start

PART = "part"  # first in the lines of `Progress`


@dataclass(frozen=True)
class Task:
    """The measurement of one process."""

    fold: int
    model: str
    width: int
    batch_size: int
    steps: int
    warm_up_steps: int
    workers: int
    settings: Sequence[str]
    limit_s: float | None = None  # seconds of the process after which no timed step begins
    program: str = ""
    store: str = ""
    # Folder with `CASE-0007-image.nii.gz` and `-label.nii.gz` for each slice of the training cases
    slices: str = ""


class Progress:
    """Prints the seconds of each part of a start, so that they remain of a training that is ended; the first part began
    with the process.
    """

    def __init__(self) -> None:
        self.began = self._last = process_start()

    def finish(self, part: str) -> None:
        now = time.monotonic()
        print(json.dumps({PART: part, "seconds": now - self._last}), file=sys.__stdout__, flush=True)
        self._last = now


class Timed:
    """A function, and the seconds of all its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments: object) -> Any:
        began = time.perf_counter()
        result = self.function(*arguments)
        self.seconds += time.perf_counter() - began
        return result


@dataclass
class Training:
    """A training that goes on step by step."""

    step: Callable[[], None]
    take: Timed  # gets the next batch
    network: nn.Module
    wait: Callable[[], object] = lambda: None  # is finished when the device is
    note: str = ""  # what else a reader of its figures should know


class SliceFiles(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Image `(1, H, W)` float32 and label `(H, W)` int64 of a slice, each from its own NIfTI file."""

    def __init__(self, folder: Path) -> None:
        self.images = sorted(folder.glob("*-image.nii.gz"))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = nib.load(self.images[index]).get_fdata(dtype=np.float32)
        label = nib.load(_label_of(self.images[index])).get_fdata(dtype=np.float32)
        return torch.from_numpy(image)[None], torch.from_numpy(label.astype(np.int64))


def plain(task: Task, store: Store, config: ResolvedConfig, accelerator: Accelerator) -> Training:
    """A script as it is usually written."""
    device = accelerator.device
    network = build_model(config.model, store.spec.in_channels, len(store.classes)).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss(ignore_index=255)
    files = SliceFiles(Path(task.slices))
    loader = DataLoader(files, task.batch_size, shuffle=True, drop_last=True, num_workers=task.workers)
    batches = _endless(loader)
    take = Timed(lambda: [one.to(device) for one in next(batches)])

    def step() -> None:
        image, label = take()
        optimizer.zero_grad()
        loss = criterion(network(image), label)
        loss.backward()
        optimizer.step()
        loss.item()

    return Training(step, take, network)


def monai(task: Task, store: Store, config: ResolvedConfig, accelerator: Accelerator) -> Training:
    """MONAI's loader, transforms, network and loss."""
    from monai import data, losses, transforms
    from monai.networks.nets import AttentionUnet

    device, both, augment = accelerator.device, ["image", "label"], config.augment
    images = SliceFiles(Path(task.slices)).images
    files = [{"image": str(path), "label": str(_label_of(path))} for path in images]
    steps = [
        transforms.LoadImaged(both),
        transforms.EnsureChannelFirstd(both),
        transforms.EnsureTyped(both),
        transforms.RandAffined(
            both,
            prob=augment.spatial_probability,
            rotate_range=np.deg2rad(augment.rotation_degrees),
            scale_range=0.2,
            translate_range=[SHIFT_FRACTION * side for side in store.spec.size],
            mode=("bilinear", "nearest"),
            padding_mode="border",
        ),
        transforms.RandShiftIntensityd("image", offsets=augment.brightness, prob=augment.brightness_probability),
        transforms.RandAdjustContrastd("image", prob=augment.gamma_probability, gamma=augment.gamma),
        transforms.RandGaussianNoised("image", prob=augment.noise_probability, std=augment.noise[1]),
    ]
    cached = data.CacheDataset(files, transforms.Compose(steps), num_workers=task.workers or 1, progress=False)
    loader = data.DataLoader(cached, batch_size=task.batch_size, shuffle=True, drop_last=True, num_workers=task.workers)
    depth, in_channels = config.model.depth, store.spec.in_channels
    widths = [config.model.base_width * 2**level for level in range(depth + 1)]
    network: nn.Module = AttentionUnet(2, in_channels, len(store.classes), widths, [2] * depth).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    criterion = losses.DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    batches = _endless(loader)

    def transfer() -> list[torch.Tensor]:
        batch = next(batches)
        return [batch[name].as_tensor().to(device) for name in both]

    take = Timed(transfer)

    def step() -> None:
        image, label = take()
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            loss = criterion(network(image), label)
        loss.backward()
        optimizer.step()

    return Training(step, take, network, wait=lambda: next(network.parameters()).sum().item())


def _label_of(image: Path) -> Path:
    return image.with_name(image.name.replace("-image.", "-label."))


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader
