"""What a training says about its speed: operations counted on the network, shares of the step, peak memory."""

import json
from pathlib import Path

import psutil
import pytest
import torch
from small_trainings import small_config
from torch import nn

from attunet.config import ModelConfig
from attunet.device.memory import peak_memory_mb
from attunet.models import build_model
from attunet.runs.run_folder import read_metrics
from attunet.store import Store
from attunet.training.loop import train
from attunet.training.progress.telemetry import StepClock, measure_matmul_rate, training_flops

CPU = torch.device("cpu")


def test_operations_of_a_training_step_are_counted() -> None:
    first, second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
    pixels = 2 * 9 * 16 * 24
    # Forward and the weights' gradient of both; the gradient of the input is needed of the second alone.
    assert training_flops(nn.Sequential(first, second), 1, (16, 24)) == pixels * (2 * 8 + 3 * 8 * 4)


def test_counting_leaves_the_network_as_it_was() -> None:
    network = build_model(ModelConfig(name="attention_unet", base_width=8), 1, 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plain = build_model(ModelConfig(name="unet", base_width=8), 1, 3)
    assert training_flops(network, 1, (64, 64)) > training_flops(plain, 1, (64, 64))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_only_named_phases_count(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 2.0, 5.0, 9.0, 19.0, 21.0])
    monkeypatch.setattr("attunet.training.progress.telemetry.time.perf_counter", lambda: next(times))
    clock = StepClock(CPU)
    for phase in ("outside", "data", "augment", "compute", "outside", "data"):
        clock.mark(phase)
    assert clock.read() == {"data": 3.0, "augment": 3.0, "compute": 4.0}
    assert clock.read() == {"data": 0.0, "augment": 0.0, "compute": 0.0}


def test_the_matmul_rate_and_the_peak_are_of_this_machine() -> None:
    assert 1e8 < measure_matmul_rate(CPU, "no") < 1e14
    filled = torch.ones(5 * 10**6)
    resident_mb = psutil.Process().memory_info().rss / 1e6
    assert 0.95 * resident_mb < peak_memory_mb(CPU) < 1e6  # the kernel counts pages per thread and adds them up late
    del filled


def test_a_run_tells_its_speed(log_lines: list[str], small_store: Store, tmp_path: Path) -> None:
    train(small_store.path, tmp_path / "run", small_config("optim.epochs=2 run.log_every=2"), fold=0)
    rows = read_metrics(tmp_path / "run")
    lines = [row for row in rows if row["event"] in ("train", "speed")]
    assert [row["event"] for row in lines].count("speed") == 1
    facts = json.loads((tmp_path / "run" / "environment.json").read_text())
    for row in lines:
        assert 0 < row["augment_share"] < 1
        assert 0 < row["data_share"] < 1
        assert row["data_share"] + row["augment_share"] < 1
        assert row["flops_per_s"] == pytest.approx(row["slices_per_s"] * facts["training_flops_per_slice"])
        assert row["matmul_share"] == pytest.approx(row["flops_per_s"] / facts["matmul_flops_per_s"])
        assert row["peak_memory_mb"] > 50
    told = next(line for line in log_lines if line.startswith("speed: "))
    for words in ("slices/s", "% waiting for data", "% in augmentation", "% of the matmul rate", "peak memory"):
        assert words in told
