"""Trackers get configuration, losses, Dice and pictures, and a resumed training continues the same run."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attunet.config import Config, ModelConfig, OptimConfig, RunConfig
from attunet.errors import InputError
from attunet.plots.figure import new_figure, save
from attunet.training.progress.journal import _numbers
from attunet.training.progress.tracker import Tracker, run_name

DICE = {"mean": 0.5, "per_class": {"liver": 0.75, "spleen": 0.25, "left kidney": None}, "per_case": {}}


def config(tracker: str) -> Config:
    return Config(
        model=ModelConfig(base_width=4), optim=OptimConfig(epochs=1.0, batch_size=4), run=RunConfig(tracker=tracker)
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "folds/whole/unet/seed-1/fold-2"
    (path / "plots").mkdir(parents=True)
    figure = new_figure(3, 2)
    figure.subplots().plot([0, 1])
    save(figure, path / "plots/training.png")
    return path


def track_twice(name: str, folder: Path) -> Tracker:
    """A run of two parts: the second one resumes the first."""
    for step in (10, 20):
        tracker = Tracker(config(name), folder)
        tracker.log(step, _numbers("train", {"loss": 1.0 / step}, None) | _numbers("validation", {"loss": 0.5}, DICE))
        tracker.log_picture(step, folder / "plots/training.png")
        tracker.close()
    return tracker


def test_tensorboard(folder: Path) -> None:
    track_twice("tensorboard", folder)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    tags: Any = events.Tags()
    names = {f"validation/{name}" for name in ("loss", "dice", "dice/liver", "dice/spleen")}
    assert {"train/loss", *names} <= set(tags["scalars"])
    # In the order of its files, which a process numbers without leading zeros
    losses = sorted((event.step, round(event.value, 4)) for event in events.Scalars("train/loss"))
    assert losses == [(10, 0.1), (20, 0.05)]
    assert tags["images"] == ["training"]
    assert len(list(folder.glob("tensorboard/*/hparams.yml"))) == 1  # the configuration, written once
    assert "model.base_width: 4" in next(folder.glob("tensorboard/*/hparams.yml")).read_text()


@pytest.mark.slow
def test_mlflow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{folder.parents[4]}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    track_twice("mlflow", folder)
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments(filter_string="name = 'attunet'")])
    assert [run.info.run_name for run in runs] == ["whole/unet/seed-1/fold-2"]
    run = runs[0]
    assert run.data.params["model.base_width"] == "4"
    assert run.data.tags["group"] == "folds"
    assert run.data.metrics["validation/dice/liver"] == 0.75
    assert [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")] == [10, 20]
    assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["training.png"]


@pytest.mark.slow
def test_wandb_offline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = track_twice("wandb", folder)
    run = tracker._tracker.run
    assert (run.name, run.group, run.project) == ("whole/unet/seed-1/fold-2", "folds", "attunet")
    identifier = (folder / "tracker-id").read_text()
    files = sorted(folder.glob(f"wandb/offline-run-*-{identifier}/run-{identifier}.wandb"))
    assert len(files) >= 1
    content = b"".join(file.read_bytes() for file in files)
    for expected in (b"train/loss", b"validation/dice/liver", b"model.base_width"):
        assert expected in content
    assert list(folder.glob("wandb/offline-run-*/files/media/images/training_*.png"))


@pytest.mark.slow
def test_wandb_without_a_key_is_one_line(folder: Path) -> None:
    pytest.importorskip("wandb")
    code = f"""
from pathlib import Path
from attunet.config import Config, RunConfig
from attunet.training.progress.tracker import Tracker
Tracker(Config(run=RunConfig(tracker="wandb")), Path({str(folder)!r}))
"""
    without = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    settings = {"HOME": str(folder), "NETRC": str(folder / "netrc")}  # W&B remembers its settings: a process of its own
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=without | settings, stdin=subprocess.DEVNULL
    )
    assert "InputError: run.tracker: W&B cannot start (" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("run `wandb login`, or set WANDB_MODE=offline")


def test_a_package_that_is_missing_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InputError, match=r'needs the package tensorboard: pip install "attunet\[tensorboard\]"'):
        Tracker(config("tensorboard"), folder)


def test_the_runs_of_a_cross_validation_are_told_apart() -> None:
    assert run_name(Path("/data/folds/whole/unet/seed-1/fold-2")) == ("whole/unet/seed-1/fold-2", "folds")
    assert run_name(Path("/data/my-run")) == ("my-run", None)


def test_no_tracker_and_no_plots_are_imported_with_the_training() -> None:
    code = (
        "import sys, attunet.training.loop; print(sorted({'wandb', 'mlflow', 'tensorboard', 'matplotlib'} & "
        "set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
