"""nnU-Net's own 2D trainer, where `nnunetv2` is installed: its plans, network, loss, augmentation, loader and step."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from attunet.benchmarks.speed.training.others import Task, Training
from attunet.benchmarks.speed.training.progress import Progress
from attunet.classes import IGNORE_LABEL
from attunet.store import Store

PACKAGE = "nnunetv2"
DATASET = "Dataset001_Slices"
SLICE_SPACING = 4.0  # in sides of a pixel: the axis across slices is the coarse one, which nnU-Net puts first


def write_raw(store: Store, fold: int, folder: Path) -> None:
    """Writes the store's slices as nnU-Net's raw data, a volume for each case and channel, with the fold's split."""
    raw = folder / "raw" / DATASET
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    split = store.split(fold)
    names = {case: f"case{number:05d}" for number, case in enumerate([*split[0], *split[1]])}
    ignored, voxels = False, np.diag([1, 1, SLICE_SPACING, 1])
    for case, name in names.items():
        image, label = np.asarray(store.image(case), np.float32), np.array(store.label(case))
        ignored |= bool((label == IGNORE_LABEL).any())
        label[label == IGNORE_LABEL] = len(store.classes)
        for channel in range(image.shape[1]):
            path = raw / "imagesTr" / f"{name}_{channel:04d}.nii.gz"
            nib.save(nib.Nifti1Image(image[:, channel].transpose(2, 1, 0), voxels), path)
        nib.save(nib.Nifti1Image(label.transpose(2, 1, 0), voxels), raw / "labelsTr" / f"{name}.nii.gz")
    labels = {"background": 0} | {f"class {number}": number for number in range(1, len(store.classes))}
    about = {
        "channel_names": {str(channel): "noNorm" for channel in range(store.spec.in_channels)},  # the store's values
        "labels": labels | ({"ignore": len(store.classes)} if ignored else {}),
        "numTraining": len(names),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    train, held_out = ([names[case] for case in cases] for cases in split)
    (raw / "splits_final.json").write_text(json.dumps([{"train": train, "val": held_out}]), encoding="utf-8")


def nnunet(task: Task, folder: Path, accelerator: Accelerator, progress: Progress) -> Training:
    """Its trainer on the raw data in `folder`, ready for the first step."""
    set_environment(folder, processes=task.workers)
    with contextlib.redirect_stdout(sys.stderr):
        trainer, planned = make_trainer(folder, accelerator.device, progress, batch_size=task.batch_size)
        os.environ |= {
            "nnUNet_n_proc_DA": str(task.workers)
        }  # its planner fails with 0, which is no process of its own
        trainer.on_train_start()
        trainer.on_train_epoch_start()
    progress.finish("network, loaders")
    waited = [0.0]

    def step() -> None:
        began = time.perf_counter()
        batch = next(trainer.dataloader_train)
        waited[0] += time.perf_counter() - began
        trainer.train_step(batch)

    patch = trainer.configuration_manager.patch_size
    compiled = "compiled" if trainer._do_i_compile() else "not compiled"
    note = f"{compiled}, patches of {' × '.join(map(str, patch))}, its plan's batch {planned}"
    return Training(step, lambda: None, lambda: waited[0], _Slices(trainer.network, patch), accelerator, note)


def set_environment(folder: Path, *, processes: int) -> None:
    """Sets nnU-Net's folders and numbers of worker processes for this process and its children."""
    os.environ |= {f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")}
    os.environ |= dict.fromkeys(("nnUNet_n_proc_DA", "nnUNet_def_n_proc"), str(max(1, processes)))


def make_trainer(folder: Path, device: torch.device, progress: Progress, *, batch_size: int | None) -> tuple[Any, int]:
    """The 2D trainer, its data planned and preprocessed if no earlier call has done it, and the plan's batch size.

    Args:
        folder: with the raw data of `write_raw`; `set_environment` names it.
        device: of the training.
        progress: gets the parts.
        batch_size: in place of the plan's; None leaves that.
    """
    from nnunetv2.experiment_planning import plan_and_preprocess_api as planning
    from nnunetv2.run.run_training import get_trainer_from_args

    progress.finish("nnU-Net's imports")
    processes = planning.default_num_processes
    if not (folder / "prepared").exists():
        planning.extract_fingerprints([1], num_processes=processes, verbose=False, show_progress_bar=False)
        progress.finish("fingerprint")
        planning.plan_experiments([1])
        progress.finish("plan")
        planning.preprocess([1], configurations=("2d",), num_processes=[processes], show_progress_bar=False)
        progress.finish("preprocessing")
        (folder / "prepared").touch()
    torch.backends.cudnn.benchmark = True  # as its own command does
    trainer = get_trainer_from_args("1", "2d", 0, device=device)
    settings = trainer.configuration_manager.configuration
    planned = int(settings["batch_size"])
    settings["batch_size"] = batch_size or planned
    return trainer, planned


class _Slices(nn.Module):
    """The network on slices of any size up to its patch: logits of the full resolution alone."""

    def __init__(self, network: nn.Module, patch: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.patch = network, patch

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        padding = [0, max(0, self.patch[1] - width), 0, max(0, self.patch[0] - height)]
        logits: torch.Tensor = self.network(nn.functional.pad(images, padding))[0]
        return logits[..., :height, :width]
