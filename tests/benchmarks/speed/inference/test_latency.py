"""The sweep has a row for each model, batch size and number of threads, and compares with the first model."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attunet.benchmarks.speed import program
from attunet.benchmarks.speed.inference import latency


@dataclass
class Idle:
    """A model that does nothing."""

    label: str
    options: Any = None

    @property
    def model(self) -> Any:
        return type("Model", (), {"spec": type("Spec", (), {"in_channels": 1, "size": (32, 48)})})

    def random_slices(self, batch_size: int) -> np.ndarray:
        return np.zeros((batch_size, 1, 32, 48), np.float32)

    def timed_call(self, slices: np.ndarray) -> Any:
        return lambda: None


def test_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(models: Any, *, num_threads: int | None, **_: Any) -> list[Idle]:
        asked.append(num_threads)
        return [Idle("slow"), Idle("fast")]

    def timed(calls: Any, *, seconds: float, max_runs: int) -> list[np.ndarray]:
        return [np.full(max_runs, t) for t in (0.004, 0.001)]

    monkeypatch.setattr(latency, "load_models", load)
    monkeypatch.setattr(program, "time_interleaved", timed)
    results = latency.sweep([], batch_sizes=(1, 2), threads=(1, 2), runs=4, seconds=5)
    assert asked == [1, 2]
    rows = results["rows"]
    assert [(r["model"], r["threads"], r["shape"]) for r in rows[:3]] == [
        ("slow", 1, [1, 1, 32, 48]),
        ("fast", 1, [1, 1, 32, 48]),
        ("slow", 1, [2, 1, 32, 48]),
    ]
    assert len(rows) == 8
    assert {r["runs"] for r in rows} == {4}
    assert {r["times_the_first_model"] for r in rows if r["model"] == "fast"} == {4.0}
    assert [r["slices_per_s"] for r in rows[:3]] == pytest.approx([250, 1000, 500])
    json.dumps(results, allow_nan=False)
    assert len(latency.table(results).splitlines()) == 9


def test_wrong_model_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["latency", str(tmp_path / "missing.onnx")])
    with pytest.raises(SystemExit) as stopped:
        latency.main()
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
