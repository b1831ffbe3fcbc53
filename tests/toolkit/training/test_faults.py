"""What a machine does to a training: a process dies, the disk is full, the folder cannot be written."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from forked import Forked, start_forked
from small_trainings import (
    TWO_PROCESSES,
    read_until,
    set_options,
    small_config,
    start,
    train_arguments,
    train_command,
    wait_until,
)

from attunet.runs.read_checkpoint import newest_checkpoint, step_folders
from attunet.runs.run_folder import read_metrics
from attunet.store import Store
from attunet.training.loop import train

SAVING = "run.log_every=1 run.checkpoint_every_steps=2"


def launch(
    store: Store, run: Path, *settings: str, launcher: Sequence[object] = TWO_PROCESSES
) -> "subprocess.Popen[str]":
    return start(train_command(store, run, "--resume=auto", *set_options(SAVING, *settings), launcher=launcher))


def start_alone(store: Store, run: Path, *settings: str, file_limit: int | None = None) -> Forked:
    options = set_options(SAVING, *settings)
    return start_forked(train_arguments(store, run, "--resume=auto", *options), file_limit)


def process_of_rank(run: Path, rank: int) -> int:
    """The process that rank has now, from its own log."""
    lines = (run / "logs" / f"rank-{rank}.log").read_text().splitlines()
    return int(next(line for line in reversed(lines) if f"rank {rank} of 2" in line).split("process ")[1].split(":")[0])


def wait_for_checkpoint(run: Path, process: "subprocess.Popen[str] | Forked") -> None:
    wait_until(lambda: step_folders(run / "checkpoints") != [], process)


@pytest.mark.slow
def test_a_dead_rank_ends_the_others_and_is_named(small_store: Store, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = launch(small_store, run, "optim.epochs=1000")
    wait_for_checkpoint(run, job)
    os.kill(process_of_rank(run, 1), signal.SIGKILL)
    output = job.communicate(timeout=120)[0]
    assert job.returncode != 0
    assert "rank      : 1 (local_rank: 1)" in output
    assert "Signal 9 (SIGKILL) received" in output
    assert newest_checkpoint(run / "checkpoints") is not None


@pytest.mark.slow
def test_a_rank_that_hangs_is_named_and_a_restart_goes_on_from_the_last_checkpoint(
    small_store: Store, tmp_path: Path
) -> None:
    """Nobody tells the others that it is stopped: they wait for as long as is configured, and say whom for."""
    run, settings = tmp_path / "run", "optim.epochs=6 run.timeout_minutes=0.15"
    job = launch(small_store, run, settings, launcher=(*TWO_PROCESSES, "--max_restarts", 2))
    wait_for_checkpoint(run, job)
    hung = process_of_rank(run, 1)
    os.kill(hung, signal.SIGSTOP)
    line = read_until("error: ", job)
    os.kill(hung, signal.SIGKILL)  # the launcher would do so half a minute later
    output = job.communicate(timeout=180)[0]
    assert f"no sign of life from rank 1 (process {hung} on {socket.gethostname()})" in line
    assert job.returncode == 0, output
    assert "resuming at step" in output
    assert output.count("on the native grid") == 1, "rank 0 alone speaks"
    assert json.loads((run / "environment.json").read_text())["num_processes"] == 2
    steps = [row["step"] for row in read_metrics(run) if row["event"] == "train"]
    assert steps == list(range(1, steps[-1] + 1)), "every step once, none lost"
    found = newest_checkpoint(run / "checkpoints")
    assert found is not None
    assert found.state.finished


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 1.5 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", path], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_up(small_store: Store, small_disk: Path) -> None:
    run = small_disk / "run"
    job = start_alone(small_store, run, "optim.epochs=1000")
    wait_for_checkpoint(run, job)
    with (small_disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(1024))
    output = job.communicate(timeout=120)[0]
    assert job.returncode == 1, output
    assert "No space left on device" in output.splitlines()[-1], output
    assert "Traceback" not in output
    assert not list((run / "checkpoints").glob("*.partial")), "what was begun gives its room back"
    last = newest_checkpoint(run / "checkpoints")
    assert last is not None
    (small_disk / "filler").unlink()
    job = start_alone(small_store, run, "optim.epochs=1000")
    read_until(f"resuming at step {last.state.step}", job)
    job.kill()
    job.wait()


def test_a_file_system_that_is_read_only(small_store: Store, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    job = start_alone(small_store, small_disk / "run")
    output = job.communicate(timeout=120)[0]
    assert job.returncode == 2
    assert output.startswith(f"error: {small_disk}/run")
    assert output.endswith(": cannot be written: Read-only file system\n")
    assert output.count("\n") == 1


@pytest.mark.slow
def test_a_full_disk_leaves_the_earlier_checkpoints(small_store: Store, tmp_path: Path, log_lines: list[str]) -> None:
    run, config = tmp_path / "run", small_config(SAVING, "optim.epochs=4")
    train(small_store.path, run, config, fold=0)
    newest, before = sorted((run / "checkpoints").glob("step-*"), reverse=True)
    shutil.rmtree(newest)
    files = {path: path.read_bytes() for path in before.iterdir()}
    second = start_alone(small_store, run, "optim.epochs=4", file_limit=20_000)  # as on a full disk
    output = second.communicate(timeout=120)[0]
    assert second.returncode == 1, output
    assert "error: " in output
    assert "the checkpoint could not be written" in output
    assert "Traceback" not in output
    assert {path: path.read_bytes() for path in before.iterdir()} == files
    log_lines.clear()
    train(small_store.path, run, config, fold=0, resume="require")
    assert any(f"resuming at step {int(before.name[5:])}" in line for line in log_lines), log_lines


def test_a_folder_that_cannot_be_written(small_store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    job = start_alone(small_store, tmp_path / "file" / "run")
    output = job.communicate(timeout=120)[0]
    assert job.returncode == 2
    assert output.count("\n") == 1
    assert "cannot be written: Not a directory" in output
