"""What a training chooses where nothing is configured, and that it keeps it."""

import dataclasses
import tomllib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from attunet.config import Config, ModelConfig, OptimConfig, RunConfig
from attunet.runs.load_run import load_run
from attunet.training import resolve_auto as automatic
from attunet.training.loop import train
from attunet.training.resolve_auto import resolve_auto


def store_of(num_slices: int, side: int) -> SimpleNamespace:
    return SimpleNamespace(
        case=lambda name: SimpleNamespace(num_slices=num_slices),
        spec=SimpleNamespace(size=(side, side)),
        drawn_classes=lambda name: np.ones(5, bool),
    )


def on(device: str, num_processes: int = 1) -> SimpleNamespace:
    return SimpleNamespace(device=torch.device(device), num_processes=num_processes)


def sizes(config: Config, num_slices: int) -> tuple[int, int, int]:
    """Width, batch, steps."""
    return (
        config.model.base_width,
        config.optim.batch_size,
        round(config.optim.epochs * num_slices / config.optim.batch_size),
    )


@pytest.mark.parametrize(
    ("num_slices", "side", "expected"),
    [
        (60, 128, (16, 8, 1500)),  # a small data set gets enough steps
        (180, 192, (16, 8, 2250)),  # a hundred epochs
        (5000, 256, (16, 8, 5000)),  # a large one ends
        (180, 512, (16, 2, 5000)),  # large slices in small batches, so that a step costs no more
        (3, 64, (16, 3, 1500)),
        (1, 4096, (16, 2, 1500)),
    ],
)
def test_on_a_cpu_every_data_set_gets_a_sensible_training(
    num_slices: int, side: int, expected: tuple[int, int, int]
) -> None:
    config = resolve_auto(Config(), store_of(num_slices, side), ["a"], on("cpu"), None)
    assert sizes(config, num_slices) == expected


@pytest.mark.parametrize(
    ("memory", "side", "width", "batch"), [(80e9, 256, 64, 16), (8e9, 256, 32, 16), (80e9, 1024, 64, 4)]
)
def test_on_a_gpu_the_width_follows_the_memory(monkeypatch, memory: float, side: int, width: int, batch: int) -> None:
    monkeypatch.setattr(
        automatic.torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=int(memory))
    )
    config = resolve_auto(Config(), store_of(500, side), ["a"], on("cuda"), None)
    assert sizes(config, 500)[:2] == (width, batch)


def test_what_is_configured_stays() -> None:
    given = Config(model=ModelConfig(base_width=20), optim=OptimConfig(epochs=3.0, batch_size=5, schedule="poly"))
    assert resolve_auto(given, store_of(100, 64), ["a"], on("cpu"), None).to_json() == given.to_json()
    steps = resolve_auto(Config(optim=OptimConfig(batch_size=4)), store_of(1000, 64), ["a"], on("cpu"), None)
    assert sizes(steps, 1000) == (16, 4, 5000)


@pytest.mark.parametrize(("minutes", "schedule"), [(0, "one_cycle"), (5, "trapezoid")])
def test_a_training_in_a_given_time_has_the_trapezoid(minutes: float, schedule: str) -> None:
    config = Config(run=RunConfig(minutes=minutes))
    assert resolve_auto(config, store_of(100, 64), ["a"], on("cpu"), None).optim.schedule == schedule


@pytest.mark.parametrize(
    ("drawn", "steps"),
    [
        (("liver", "kidney", "spleen", "gallbladder"), 1500),
        (("liver", "spleen"), 2000),  # three quarters of the labels are there
        ((), 3000),
    ],
)
def test_partial_labels_get_as_many_steps_as_show_each_class_equally_often(drawn: tuple[str, ...], steps: int) -> None:
    store, classes = store_of(30, 128), ("background", "liver", "kidney", "spleen", "gallbladder")
    store.drawn_classes = lambda name: np.array([name == "a" or index in ("background", *drawn) for index in classes])
    assert sizes(resolve_auto(Config(), store, ["a", "b"], on("cpu"), None), 60)[2] == steps


def test_partial_labels_get_at_most_four_times_the_steps() -> None:
    store = store_of(60, 128)
    store.drawn_classes = lambda name: np.arange(10) < 2
    assert sizes(resolve_auto(Config(), store, ["a"], on("cpu"), None), 60)[2] == 6000


def test_a_run_writes_what_was_chosen_and_keeps_it_when_continued(
    log_lines: list[str], small_store, tmp_path, monkeypatch
) -> None:
    config = Config(
        model=ModelConfig(depth=1),
        optim=OptimConfig(),
        run=RunConfig(mixed_precision="no", device="cpu", checkpoint_every_steps=1),
    )
    monkeypatch.setattr(automatic, "CPU_STEPS", (2, 2))
    monkeypatch.setattr(automatic, "CPU_WIDTH", 4)
    train(small_store.path, tmp_path / "run", config, fold=0)
    written = tomllib.loads((tmp_path / "run/config.toml").read_text())
    slices = sum(small_store.case(case).num_slices for case in small_store.split(0)[0])
    assert (written["model"]["base_width"], written["optim"]["batch_size"]) == (4, 8)
    assert written["optim"]["epochs"] == pytest.approx(16 / slices, abs=0.01)
    assert load_run(tmp_path / "run").step == 2
    monkeypatch.undo()  # as on another machine, which would choose other values
    log_lines.clear()
    train(small_store.path, tmp_path / "run", config, fold=0, resume="require")
    assert "this training is finished" in log_lines[0]
    other = dataclasses.replace(config, model=ModelConfig(depth=1, base_width=5))
    with pytest.raises(Exception, match=r"model\.base_width was 4"):
        train(small_store.path, tmp_path / "run", other, fold=0, resume="require")
