"""Four ways to train on one store, each in a process of its own:
`python -m attunet.benchmarks.speed.training.programs TASK.json`.

- `attunet`: this toolkit as `attunet train` runs it: slices on the device, augmented there, bf16 where fast,
  channels-last.
- `attunet-streamed`: the same with the slices streamed from the store.
- `plain`: a script as it is usually written: one NIfTI file per sample and per label, opened when it is asked for,
  fp32, NCHW, Adam, `.item()` after every step, no augmentation. The network is ours, the very same.
- `monai`: MONAI's CacheDataset and its DataLoader, its random transforms, its AttentionUnet, its loss, autocast to
  bf16.

Each says how long every step took and how long it waited for data; one JSON line.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import nibabel as nib
import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, Dataset

from attunet.config import ResolvedConfig, load_config
from attunet.device.accelerator import make_accelerator
from attunet.loading.choose import make_loader
from attunet.loading.loader import Batch
from attunet.loading.transforms import SHIFT_FRACTION
from attunet.models import build_model
from attunet.store import Store, open_store
from attunet.system.peak_memory import peak_resident_mb
from attunet.training.trainer import Trainer
from attunet.training.validation import Validator


@dataclass(frozen=True)
class Task:
    """The measurement of one process. slices: a folder with
    `CASE-0007-image.nii.gz` and `-label.nii.gz` for each slice of the training cases."""

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
    """A training that goes on step by step. `wait` is finished when the device is;
    `waited_s` sums what its data took.
    """

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


def _attunet(
    task: Task, store: Store, training: list[str], config: ResolvedConfig, accelerator: Accelerator
) -> Training:
    tier = "streamed" if task.program == "attunet-streamed" else "resident"
    optim = config.optim
    loader = make_loader(store, training, accelerator, seed=config.run.seed, batch_size=optim.batch_size, tier=tier)
    waited, take = [0.0], loader.take

    def timed(step: int) -> Batch:
        began = time.perf_counter()
        batch = take(step)
        waited[0] += time.perf_counter() - began
        return batch

    loader.take = timed  # type: ignore[method-assign]
    trainer = Trainer(
        build_model(config.model, store.spec.in_channels, len(store.classes)),
        loader,
        len(store.classes),
        config,
        accelerator,
    )
    numbers = iter(range(sys.maxsize))
    return Training(
        lambda: trainer.step(next(numbers)),
        trainer.read_losses,
        lambda: waited[0],
        trainer.average.network,
        accelerator,
    )


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


def _plain(task: Task, store: Store, training: list[str], config: ResolvedConfig, accelerator: Accelerator) -> Training:
    device = accelerator.device
    network = build_model(config.model, store.spec.in_channels, len(store.classes)).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss(ignore_index=255)
    loader = DataLoader(
        SliceFiles(Path(task.slices)),
        batch_size=task.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=task.workers,
    )
    batches, waited = _endless(loader), [0.0]

    def step() -> None:
        began = time.perf_counter()
        image, label = next(batches)
        image, label = image.to(device), label.to(device)
        waited[0] += time.perf_counter() - began
        optimizer.zero_grad()
        loss = criterion(network(image), label)
        loss.backward()
        optimizer.step()
        loss.item()

    return Training(step, lambda: None, lambda: waited[0], network, accelerator)


def _monai(task: Task, store: Store, training: list[str], config: ResolvedConfig, accelerator: Accelerator) -> Training:
    from monai import data, losses, transforms
    from monai.networks.nets import AttentionUnet

    device, both = accelerator.device, ["image", "label"]
    files = [
        {"image": str(path), "label": str(_label_of(path))} for path in sorted(Path(task.slices).glob("*-image.nii.gz"))
    ]
    steps = [
        transforms.LoadImaged(both),
        transforms.EnsureChannelFirstd(both),
        transforms.EnsureTyped(both),
        transforms.RandAffined(
            both,
            prob=config.augment.spatial_probability,
            rotate_range=np.deg2rad(config.augment.rotation_degrees),
            scale_range=0.2,
            translate_range=[SHIFT_FRACTION * side for side in store.spec.size],
            mode=("bilinear", "nearest"),
            padding_mode="border",
        ),
        transforms.RandShiftIntensityd(
            "image", offsets=config.augment.brightness, prob=config.augment.brightness_probability
        ),
        transforms.RandAdjustContrastd("image", prob=config.augment.gamma_probability, gamma=config.augment.gamma),
        transforms.RandGaussianNoised("image", prob=config.augment.noise_probability, std=config.augment.noise[1]),
    ]
    cached = data.CacheDataset(files, transforms.Compose(steps), num_workers=task.workers or 1, progress=False)
    loader = data.DataLoader(cached, batch_size=task.batch_size, shuffle=True, drop_last=True, num_workers=task.workers)
    levels = [config.model.base_width * 2**level for level in range(config.model.depth + 1)]
    network: nn.Module = AttentionUnet(
        2, store.spec.in_channels, len(store.classes), levels, [2] * config.model.depth
    ).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    criterion = losses.DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    batches, waited = _endless(loader), [0.0]

    def step() -> None:
        began = time.perf_counter()
        batch = next(batches)
        image, label = batch["image"].as_tensor().to(device), batch["label"].as_tensor().to(device)
        waited[0] += time.perf_counter() - began
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            loss = criterion(network(image), label)
        loss.backward()
        optimizer.step()

    return Training(step, lambda: next(network.parameters()).sum().item(), lambda: waited[0], network, accelerator)


def _label_of(image: Path) -> Path:
    return image.with_name(image.name.replace("-image.", "-label."))


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


class ToDice(TypedDict):
    """`minutes`: until the validation Dice was `dice`, None if it was not; all minutes are of training alone."""

    dice: float
    minutes: float | None
    best_dice: float
    trained_minutes: float


class Measured(TypedDict):
    """One training: seconds of the timed steps and of waiting for data, both in all."""

    seconds: float
    waiting_s: float
    num_parameters: int
    device: str
    peak_memory_mb: float | None
    to_dice: ToDice | None


def run(task: Task) -> Measured:
    """Times a training, and trains on to a Dice where the task has one."""
    store = open_store(task.store)
    asked = dataclasses.replace(
        load_config(None, [*task.settings, f'model.name="{task.model}"']), data=store.data_config
    )
    config = asked.resolve(base_width=task.width, batch_size=task.batch_size, epochs=100)
    program = make(task, store, config)
    on_gpu = program.accelerator.device.type == "cuda"
    for _ in range(task.warm_up_steps):
        program.step()
    program.wait()
    waited, began = program.waited_s(), time.perf_counter()
    for _ in range(task.steps):
        program.step()
    program.wait()
    seconds = time.perf_counter() - began
    parameters = sum(p.numel() for p in program.network.parameters())
    return {
        "seconds": seconds,
        "waiting_s": program.waited_s() - waited,
        "num_parameters": parameters,
        "device": program.accelerator.device.type,
        "peak_memory_mb": torch.cuda.max_memory_allocated() / 1e6 if on_gpu else peak_resident_mb(),
        "to_dice": _to_dice(task, store, config, program) if task.dice is not None else None,
    }


def _to_dice(task: Task, store: Store, config: ResolvedConfig, program: Training) -> ToDice:
    """Trains on, validating now and then on the store's grid; the clock stands still meanwhile.
    Warm-up and timed steps are not counted.
    """
    assert task.dice is not None
    validator = Validator(store, store.split(task.fold)[1], program.accelerator, config.optim)
    clock, best = 0.0, 0.0
    reached: float | None = None
    while clock < 60 * task.minutes and reached is None:
        began = time.perf_counter()
        while time.perf_counter() - began < 6 * task.minutes / 2:  # twenty validations
            program.step()
        program.wait()
        clock += time.perf_counter() - began
        program.network.eval()
        dice = validator.validate(program.network).dice["mean"] or 0.0
        program.network.train()
        best = max(best, dice)
        reached = clock / 60 if dice >= task.dice else None
    return {"dice": task.dice, "minutes": reached, "best_dice": best, "trained_minutes": clock / 60}


def main() -> None:
    fields = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(json.dumps(run(Task(**fields | {"settings": tuple(fields["settings"])}))), flush=True)


if __name__ == "__main__":
    main()
