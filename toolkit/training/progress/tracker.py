"""Experiment trackers (Weights & Biases, TensorBoard, MLflow) through Accelerate."""

import importlib
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker

from attunet.config import Config
from attunet.errors import InputError, one_line

ID_FILE = "tracker-id"  # in the run folder: a resumed training continues the same run of the tracker


class Tracker:
    """One run of the tracker `run.tracker`; only the main process has one.

    Raises:
        InputError: the package is not installed, or the tracker cannot start.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        name = config.run.tracker
        id_file = folder / ID_FILE
        known = id_file.read_text(encoding="utf-8").strip() if id_file.exists() else None
        self._tracker, run_id = STARTS[name](config, folder, known)
        if known is None:
            id_file.write_text(run_id, encoding="utf-8")
            self._tracker.store_init_configuration(_flat(config))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._tracker.log(dict(figures), step=step)

    def log_picture(self, step: int, path: Path) -> None:
        """Send a PNG file under the name of the file."""
        if isinstance(self._tracker, MLflowTracker):
            self._tracker.log_artifact(str(path))
            return
        from matplotlib.image import imread

        picture = imread(path)[None, :, :, :3]  # (1, H, W, 3) from 0 to 1
        options = {"dataformats": "NHWC"} if isinstance(self._tracker, TensorBoardTracker) else {}
        self._tracker.log_images({path.stem: picture}, step=step, **options)

    def close(self) -> None:
        self._tracker.finish()


def run_name(folder: Path) -> tuple[str, str | None]:
    """The name and the group of a run: of a cross-validation's `RECIPE/MODEL/seed-S/fold-K` and the folder above, of
    any other the name of its folder and None.
    """
    parts = folder.resolve().parts
    if len(parts) > 5 and parts[-2].startswith("seed-") and parts[-1].startswith("fold-"):
        return "/".join(parts[-4:]), parts[-5]
    return parts[-1], None


def _start_wandb(config: Config, folder: Path, known: str | None) -> tuple[GeneralTracker, str]:
    wandb = _package("wandb")
    (name, group), run_id = run_name(folder), known or secrets.token_hex(8)
    tracker = WandBTracker(config.run.project, name=name, group=group, dir=str(folder), id=run_id, resume="allow")
    try:
        tracker.start()
    except wandb.errors.Error as error:
        hint = f"; WANDB_MODE=offline keeps the figures in {folder}/wandb"
        if isinstance(error, wandb.errors.UsageError):
            hint = ": run `wandb login`, or set WANDB_MODE=offline"
        raise InputError(f"run.tracker: W&B cannot start ({one_line(error)}){hint}") from None
    return tracker, run_id


def _start_tensorboard(config: Config, folder: Path, known: str | None) -> tuple[GeneralTracker, str]:
    _package("tensorboard")
    tracker = TensorBoardTracker("", logging_dir=folder / "tensorboard")
    tracker.start()
    return tracker, "tensorboard"


def _start_mlflow(config: Config, folder: Path, known: str | None) -> tuple[GeneralTracker, str]:
    mlflow = _package("mlflow")
    name, group = run_name(folder)
    tags = {"group": group or "", "model": config.model.name, "seed": str(config.run.seed)}
    tracker = MLflowTracker(config.run.project, run_id=known, run_name=name, tags=tags)
    try:
        tracker.start()
    except mlflow.exceptions.MlflowException as error:
        place = os.environ.get("MLFLOW_TRACKING_URI", "its default store")
        raise InputError(
            f"run.tracker: MLflow cannot start with {place} ({one_line(error)}); check MLFLOW_TRACKING_URI"
        ) from None
    return tracker, str(tracker.active_run.info.run_id)


STARTS: dict[str, Callable[[Config, Path, str | None], tuple[GeneralTracker, str]]] = {
    "wandb": _start_wandb,
    "tensorboard": _start_tensorboard,
    "mlflow": _start_mlflow,
}


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f'run.tracker: "{name}" needs the package {name}: pip install "attunet[{name}]"') from None


def _flat(config: Config) -> dict[str, bool | str | float]:
    """Return the configuration by `section.field`, with lists as text because trackers accept plain values only."""
    return {
        f"{section}.{name}": value if isinstance(value, bool | int | float | str) else str(value)
        for section, fields in config.to_json().items()
        for name, value in fields.items()
    }
