"""nnU-Net's own 2D trainer on a store's slices: its plans, network, loss, augmentation, loader and step."""

import contextlib
import sys
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from attunet.benchmarks.nnunet.raw_data import write_raw
from attunet.benchmarks.nnunet.trainer import make_trainer, set_environment, set_workers
from attunet.benchmarks.speed.training.others import Progress, Task, Timed, Training
from attunet.store import Store

SPACING = np.diag([1.0, 1.0, 4.0, 1.0])  # the axis across slices is the coarse one, which nnU-Net puts first


def write_slices(store: Store, fold: int, folder: Path) -> None:
    """Writes the store's slices, with their values, and the fold's split as raw data in `folder`."""

    def read(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image = np.asarray(store.image(case), np.float32).transpose(1, 3, 2, 0)
        return image, np.array(store.label(case)).transpose(2, 1, 0), SPACING

    channels = ["noNorm"] * store.spec.in_channels
    write_raw(folder, store.split(fold), read, num_classes=len(store.classes), channels=channels)


def nnunet(task: Task, folder: Path, accelerator: Accelerator, progress: Progress) -> Training:
    """Its trainer on the raw data in `folder`, ready for the first step."""
    set_environment(folder, processes=task.workers)
    device, finish = accelerator.device, progress.finish
    with contextlib.redirect_stdout(sys.stderr):
        trainer, planned = make_trainer(folder, device, batch_size=task.batch_size, finish=finish)
        set_workers(task.workers)
        trainer.on_train_start()
        trainer.on_train_epoch_start()
    finish("network, loaders")
    take = Timed(lambda: next(trainer.dataloader_train))

    def step() -> None:
        trainer.train_step(take())

    patch = trainer.configuration_manager.patch_size
    compiled = "compiled" if trainer._do_i_compile() else "not compiled"
    note = f"{compiled}, patches of {' × '.join(map(str, patch))}, its plan's batch {planned}"
    return Training(step, take, trainer.network, note=note)
