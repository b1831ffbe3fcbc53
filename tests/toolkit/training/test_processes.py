"""One, two and three processes: the same loss, the same samples, the same metrics; and a run that goes on with another number of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from attunet.store import Store
from attunet.training.run_folder import read_metrics

PROGRAM = Path(__file__).with_name("measure_processes.py")
CONFIG = Path(__file__).parents[3] / "launch" / "configs" / "cpu.yaml"


def launch(processes: int, *arguments: str, module: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable]
    if processes > 1:
        options = ["--config_file", str(CONFIG), "--num_processes", str(processes), "--main_process_port", "0"]
        command += ["-m", "accelerate.commands.launch", *options]
    command += ["-m", *arguments] if module else list(arguments)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


def measure(processes: int, store: Store, *settings: str) -> dict:
    done = launch(processes, str(PROGRAM), str(store.path), *settings)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{"))))


@pytest.fixture(scope="module")
def alone(small_store: Store) -> dict:
    return measure(1, small_store)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "parts"), [(2, 1), (3, 1), (2, 2)])
def test_many_processes_compute_what_one_does(small_store: Store, alone: dict, processes: int, parts: int) -> None:
    """Batches of five and three cases: neither number of processes divides both. parts: in which each computes its share."""
    together = measure(processes, small_store, f"optim.accumulate_steps={parts}")
    assert together["processes"] == processes
    assert together["each_once"]
    assert together["losses"] == pytest.approx(alone["losses"], abs=1e-4)
    assert together["losses"][-1] < 0.95 * together["losses"][0]
    assert together["validation"]["dice"] == alone["validation"]["dice"]
    assert together["validation"]["loss"] == pytest.approx(alone["validation"]["loss"], abs=1e-6)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(small_store: Store, tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = ["model.base_width=4", "model.depth=2", "optim.batch_size=4", "run.mixed_precision=no", "run.log_every=1"]
    options = [word for setting in small for word in ("--set", setting)]
    common = ["attunet.launch.train", str(small_store.path), str(run), "--fold", "0", *options, "--set", "optim.epochs=1"]
    first = launch(2, *common, module=True)
    assert first.returncode == 0, first.stderr[-3000:]
    assert "2 process" in first.stdout
    assert first.stdout.count("on the native grid") == 1  # one process speaks
    checkpoints = run / "checkpoints"
    newest = sorted(checkpoints.glob("step-*"))[-1]
    again = launch(1, *common, "--resume", module=True)
    assert again.returncode == 0
    assert "finished" in again.stdout
    assert [row["step"] for row in read_metrics(run) if row["event"] == "train"] == list(range(1, int(newest.name[5:]) + 1))
