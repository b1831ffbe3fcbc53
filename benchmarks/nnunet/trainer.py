"""nnU-Net's own 2D trainer on the raw data of `raw_data`."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PACKAGE = "nnunetv2"


def set_environment(folder: Path, *, processes: int) -> None:
    """Sets nnU-Net's folders and numbers of worker processes for this process and its children."""
    os.environ |= {f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")}
    os.environ |= {"nnUNet_def_n_proc": str(max(1, processes))}
    set_workers(max(1, processes))


def set_workers(processes: int) -> None:
    """Sets the processes that augment; with 0, of which the planner knows nothing, the trainer does it itself."""
    os.environ |= {"nnUNet_n_proc_DA": str(processes)}


def make_trainer(
    folder: Path, device: torch.device, *, batch_size: int | None, finish: Callable[[str], None]
) -> tuple[Any, int]:
    """The 2D trainer, its data in the folder that `set_environment` names planned and preprocessed if no earlier call
    has done it, and the plan's batch size. batch_size: in place of that; finish: is called with the name of each part.
    """
    from nnunetv2.experiment_planning import plan_and_preprocess_api as planning
    from nnunetv2.run.run_training import get_trainer_from_args

    finish("nnU-Net's imports")
    processes, prepared = planning.default_num_processes, folder / "prepared"
    if not prepared.exists():
        planning.extract_fingerprints([1], num_processes=processes, verbose=False, show_progress_bar=False)
        finish("fingerprint")
        planning.plan_experiments([1])
        finish("plan")
        planning.preprocess([1], configurations=("2d",), num_processes=[processes], show_progress_bar=False)
        finish("preprocessing")
        prepared.touch()
    torch.backends.cudnn.benchmark = True  # as its own command does
    trainer = get_trainer_from_args("1", "2d", 0, device=device)
    settings = trainer.configuration_manager.configuration
    planned = int(settings["batch_size"])
    settings["batch_size"] = batch_size or planned
    return trainer, planned


def make_predictor(trainer: Any) -> Any:
    """The network as nnU-Net predicts with it: sliding windows, mirrored."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    trainer.set_deep_supervision_enabled(False)
    network = getattr(trainer.network, "_orig_mod", trainer.network)  # below torch.compile
    on_gpu = trainer.device.type == "cuda"
    predictor = nnUNetPredictor(device=trainer.device, perform_everything_on_device=on_gpu, allow_tqdm=False)
    predictor.manual_initialization(
        network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [network.state_dict()],
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    return predictor
