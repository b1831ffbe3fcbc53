"""nnU-Net's own 2D trainer on a store's slices: its plans, network, loss, augmentation, loader and step."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from attunet.benchmarks.nnunet.raw_data import RawCase, write_raw
from attunet.benchmarks.nnunet.trainer import make_trainer, set_environment, set_workers
from attunet.benchmarks.speed.training.others import Task, Timed, Training
from attunet.benchmarks.speed.training.progress import Progress
from attunet.store import Store

SPACING = np.diag([1.0, 1.0, 4.0, 1.0])  # the axis across slices is the coarse one, which nnU-Net puts first


def write_slices(store: Store, fold: int, folder: Path) -> None:
    """Writes the store's slices, with their values, and the fold's split as raw data in `folder`."""
    split = store.split(fold)
    names = {case: f"case{number:05d}" for number, case in enumerate([*split[0], *split[1]])}

    def cases() -> Iterator[RawCase]:
        for case, name in names.items():
            image = np.asarray(store.image(case), np.float32).transpose(1, 3, 2, 0)
            yield RawCase(name, image, np.array(store.label(case)).transpose(2, 1, 0), SPACING)

    train, held_out = ([names[case] for case in cases] for cases in split)
    channels = ["noNorm"] * store.spec.in_channels
    write_raw(folder, cases(), (train, held_out), num_classes=len(store.classes), channels=channels)


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
