"""Every program really trains, at a tiny size, and the rows say what was measured."""

import contextlib
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from attunet.benchmarks.speed.training import comparison, comparison_rows, programs
from attunet.benchmarks.speed.training.others import Task
from attunet.store import Store

TASK = Task(
    fold=0,
    model="attention_unet",
    width=4,
    batch_size=2,
    steps=2,
    warm_up_steps=1,
    workers=0,
    settings=("model.depth=2",),
)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_programs")
def test_programs(small_store: Store) -> None:
    results = comparison.compare(small_store, TASK, programs=comparison.PROGRAMS[:4], rounds=1)
    ours, streamed, plain, monai = results["results"]
    assert [row["name"] for row in results["results"]] == list(comparison.PROGRAMS[:4])
    assert ours["num_parameters"] == streamed["num_parameters"] == plain["num_parameters"] != monai["num_parameters"]
    for row in results["results"]:
        assert row["slices_per_s"] == pytest.approx(2 * 1000 / row["step_ms_p50"])
        assert 0 < row["waiting_share"] < 1
        assert row["peak_memory_mb"] > 50
        assert list(row["start_s"]) == ["imports", "network, loader", "first step"]
        assert min(row["start_s"].values()) > 0
    assert ours["times_plain"] == pytest.approx(ours["slices_per_s"] / plain["slices_per_s"])
    assert plain["times_plain"] == monai["times_monai"] == 1
    assert results["settings"]["shape"][:2] == [2, 1]
    assert len(comparison_rows.table(json.loads(json.dumps(results, allow_nan=False))).splitlines()) >= 4


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("nnunetv2") is None, reason="nnunetv2 is not installed")
def test_nnunets_trainer(small_store: Store, tmp_path: Path) -> None:
    kept = tmp_path / "rows.json"
    results = comparison.compare(small_store, TASK, programs=["attunet", "nnunet"], rounds=2, file=kept)
    ours, theirs = results["results"]
    assert theirs["slices_per_s"] == pytest.approx(2 * 1000 / theirs["step_ms_p50"])
    assert 0 < theirs["waiting_share"] < 1
    assert theirs["num_parameters"] > 1_000_000 > ours["num_parameters"]
    assert ours["times_nnunet"] == pytest.approx(ours["slices_per_s"] / theirs["slices_per_s"])
    assert theirs["times_nnunet"] == 1
    parts = ["nnU-Net's imports", "fingerprint", "plan", "preprocessing", "network, loaders", "first step"]
    assert list(theirs["start_s"]) == ["imports", *parts]
    assert theirs["note"].startswith("not compiled, patches of ")
    assert json.loads(kept.read_text())["results"] == results["results"]


@pytest.mark.parametrize(("program", "package"), [("nnunet", "nnunetv2"), ("monai", "monai")])
def test_what_is_not_installed_is_left_out(
    program: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as where it is absent
    assert comparison.installed(["plain", program, "plain"]) == ["plain"]
    line = f"{package} is not installed, so {program} is left out (pip install {package})\n"
    assert capsys.readouterr().err == line


def test_a_training_over_its_limit_is_ended(small_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "GRACE_S", 0)
    task = dataclasses.replace(TASK, limit_s=0.2)
    row = comparison.compare(small_store, task, programs=["plain"], rounds=1)["results"][0]
    assert row["note"] == "out of time (0.2 s) in its imports"
    assert row["slices_per_s"] is None
    assert "in its imports" in comparison_rows.table({"results": [row]})
    children = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    assert not any("training.programs" in command for command in children)


@pytest.mark.slow
def test_no_timed_step_begins_after_the_limit_and_what_a_training_reached_is_not_that_of_the_one_before(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison._write_slices(small_store, small_store.split(0)[0], tmp_path)
    late = dataclasses.replace(TASK, program="plain", store=str(small_store.path), slices=str(tmp_path), limit_s=0.2)
    monkeypatch.setattr(comparison, "GRACE_S", 300)
    measured = {"plain": [comparison._in_own_process(late)]}
    row = comparison_rows.results_of(small_store, late, measured, rounds=1)["results"][0]
    assert row["note"] == "0 of 2 steps in 0.2 s"
    assert row["num_parameters"] > 1000
    assert "first step" in row["start_s"]
    monkeypatch.setattr(comparison, "GRACE_S", 0)
    row = comparison._in_own_process(late)
    assert (row["note"], row["start_s"]) == ("out of time (0.2 s) in its imports", {})


def _training_of(pid: int) -> psutil.Process | None:
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):
            if "attunet.benchmarks.speed.training.programs" in child.cmdline():
                return child
    return None


@pytest.mark.slow
def test_a_training_ends_with_the_command(small_store: Store, tmp_path: Path) -> None:
    options = [
        "--only=plain",
        f"--store={small_store.path}",
        "--width=4",
        "--batch-size=2",
        "--steps=1000000",
        "--workers=0",
    ]
    command = [sys.executable, "-m", "attunet.benchmarks.speed.training.comparison", *options]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        while (training := _training_of(running.pid)) is None:
            assert running.poll() is None
            time.sleep(0.2)
        running.terminate()
    assert psutil.wait_procs([training], timeout=10)[1] == []
    assert not list(tmp_path.iterdir())


def test_with_a_graph_the_wait_for_its_inputs_is_counted(small_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attunet.training.trainer.graph_obstacle", lambda *_: "")
    monkeypatch.setattr("attunet.training.trainer.capture_cuda_graph", lambda function: function)
    result = programs.run(dataclasses.replace(TASK, program="attunet", store=str(small_store.path)))
    assert 0 < result["waiting_s"] < result["seconds"]
