"""Nothing short of losing the disk costs more than the steps since the last checkpoint."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from attunet.config import load_config
from attunet.errors import InputError
from attunet.runs.load_run import load_run
from attunet.runs.read_checkpoint import newest_checkpoint
from attunet.runs.run_folder import read_metrics
from attunet.store import Store
from attunet.training.loop import train

PROGRAM = Path(__file__).with_name("kill_and_resume.py")
CONFIG = """
[model]
base_width = 4
depth = 2
[optim]
epochs = 2
batch_size = 4
[run]
log_every = 2
checkpoint_every_steps = 1
validate_every_epochs = 1
"""
TENSORS = ("model", "average", "optimizer")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(CONFIG)
    return path


def run_program(
    store: Store, folder: Path, config: Path, moments: Sequence[int | str], processes: str = "1"
) -> list[dict]:
    command = [sys.executable, str(PROGRAM), str(store.path), str(folder), str(config), processes, *map(str, moments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return [json.loads(line) for line in done.stdout.splitlines()]


def tensors(run: Path) -> dict[str, bytes]:
    last = sorted((run / "checkpoints").glob("step-*"))[-1]
    return {name: (last / f"{name}.safetensors").read_bytes() for name in TENSORS}


@pytest.fixture(scope="module")
def uninterrupted(small_store: Store, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    assert run_program(small_store, folder, config, [0]) == [{"moment": "0", "codes": [0]}]
    return folder / "0"


@pytest.fixture(scope="module")
def uninterrupted_pair(small_store: Store, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference-pair")
    assert run_program(small_store, folder, config, [0], "2") == [{"moment": "0", "codes": [0]}]
    return folder / "0"


def check_moments(
    store: Store, config: Path, uninterrupted: Path, folder: Path, moments: Sequence[int | str], processes: str = "1"
) -> int:
    """Kills at each moment; returns how many of the trainings were really killed."""
    killed = 0
    for row in run_program(store, folder, config, moments, processes):
        assert row["codes"][-1] == 0, row
        killed += row["codes"][0] == -signal.SIGKILL
        assert tensors(folder / str(row["moment"])) == tensors(uninterrupted), row
    return killed


@pytest.mark.slow
def test_killed_while_writing_and_resumed_gives_the_same_weights(
    small_store: Store, config: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    # The first four writes are of config.toml and environment.json; then come checkpoints of eight, one after each
    # step. Three steps are an epoch, so training goes on in the middle of one and at its edge.
    boundaries = [3, 6, 9, 14, 20, 28, 31, 40]
    assert check_moments(small_store, config, uninterrupted, tmp_path, boundaries) == len(boundaries)


@pytest.mark.slow
def test_two_processes_killed_while_writing(
    small_store: Store, config: Path, uninterrupted_pair: Path, tmp_path: Path
) -> None:
    boundaries = [14, 29]
    assert check_moments(small_store, config, uninterrupted_pair, tmp_path, boundaries, "2") == len(boundaries)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_killed_at_every_write(small_store: Store, config: Path, uninterrupted: Path, tmp_path: Path) -> None:
    assert check_moments(small_store, config, uninterrupted, tmp_path, list(range(1, 80))) > 50


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_two_processes_killed_at_every_write(
    small_store: Store, config: Path, uninterrupted_pair: Path, tmp_path: Path
) -> None:
    assert check_moments(small_store, config, uninterrupted_pair, tmp_path, list(range(1, 80)), "2") > 50


def random_moments(run: Path, count: int, seed: int) -> list[str]:
    """Seconds spread over the whole of a training as long as `run` was, its start and its end included."""
    longest = 1.2 * read_metrics(run)[-1]["seconds"] + 0.5
    return [f"{random.Random(seed + number).uniform(0.1, longest):.4f}" for number in range(count)]


@pytest.mark.slow
def test_killed_at_random_moments(small_store: Store, config: Path, uninterrupted: Path, tmp_path: Path) -> None:
    check_moments(small_store, config, uninterrupted, tmp_path, random_moments(uninterrupted, 4, seed=0))


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_killed_at_many_random_moments(small_store: Store, config: Path, uninterrupted: Path, tmp_path: Path) -> None:
    assert check_moments(small_store, config, uninterrupted, tmp_path, random_moments(uninterrupted, 40, seed=100)) > 20


@pytest.mark.slow
def test_one_of_two_processes_killed_at_random_moments(
    small_store: Store, config: Path, uninterrupted_pair: Path, tmp_path: Path
) -> None:
    check_moments(small_store, config, uninterrupted_pair, tmp_path, random_moments(uninterrupted_pair, 2, seed=7), "2")


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_one_of_two_processes_killed_at_many_random_moments(
    small_store: Store, config: Path, uninterrupted_pair: Path, tmp_path: Path
) -> None:
    assert (
        check_moments(
            small_store, config, uninterrupted_pair, tmp_path, random_moments(uninterrupted_pair, 40, seed=200), "2"
        )
        > 20
    )


def samples_of_steps(path: Path) -> dict[tuple[int, int], list[int]]:
    """(processes, step): what they took together, ascending; an attempt that was killed in the middle of the step is
    left out.
    """
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found: dict[tuple[int, int], list[int]] = {}
    for attempt, step in {(row["attempt"], row["step"]) for row in rows}:
        parts = [row for row in rows if (row["attempt"], row["step"]) == (attempt, step)]
        if len(parts) == parts[0]["world"]:
            taken = sorted(sample for row in parts for sample in row["samples"])
            assert found.setdefault((len(parts), step), taken) == taken, (
                "taken again after a crash, a step has the same samples"
            )
    return found


@pytest.mark.slow
def test_from_two_processes_to_one_and_back_the_order_stays(
    small_store: Store, config: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    (row,) = run_program(small_store, tmp_path, config, [17], "2,1,2")
    assert row["codes"] == [-signal.SIGKILL, -signal.SIGKILL, 0]
    alone = samples_of_steps(uninterrupted.with_suffix(".samples"))
    mixed = samples_of_steps(tmp_path / "17.samples")
    assert {processes for processes, _ in mixed} == {1, 2}
    assert {step for _, step in mixed} == {step for _, step in alone} == set(range(6))
    assert all(taken == alone[1, step] for (_, step), taken in mixed.items())


def start_training(store: Store, run: Path, config: Path, *options: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "attunet.launch.train",
        str(store.path),
        str(run),
        "--fold",
        "0",
        "--config",
        str(config),
        *options,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_steps(run: Path, process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not (run / "metrics.jsonl").exists():
        time.sleep(0.02)


@pytest.mark.slow
def test_stopped_by_sigterm_it_can_be_resumed(small_store: Store, config: Path, tmp_path: Path) -> None:
    run, longer = tmp_path / "run", ["--set", "optim.epochs=2000", "--set", "run.checkpoint_every_steps=0"]
    process = start_training(small_store, run, config, *longer)
    wait_for_steps(run, process)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "continue with --resume" in output
    stopped_at = load_run(run).step
    assert 0 < stopped_at < 2000
    assert not (run / "run.lock").exists()
    process = start_training(small_store, run, config, *longer, "--resume")
    while f"resuming at step {stopped_at}" not in (line := process.stdout.readline()):  # type: ignore[union-attr]
        assert line, "ended without resuming"
    process.kill()
    process.wait()


@pytest.mark.slow
def test_a_run_in_use_is_refused_and_a_dead_lock_is_not_in_the_way(
    small_store: Store, config: Path, tmp_path: Path
) -> None:
    run, longer = tmp_path / "run", ["--set", "optim.epochs=2000"]
    first = start_training(small_store, run, config, *longer)
    wait_for_steps(run, first)
    second = start_training(small_store, run, config, *longer, "--resume=auto")
    output = second.communicate(timeout=60)[0]
    assert second.returncode == 2
    assert f"in use by process {first.pid}" in output
    first.kill()
    first.wait()
    assert (run / "run.lock").exists()
    third = start_training(small_store, run, config, *longer, "--resume=auto")
    while "slices" not in (line := third.stdout.readline()):  # type: ignore[union-attr]
        assert line, "a dead process's lock kept the run closed"
    third.kill()
    third.wait()


@pytest.mark.parametrize(
    "file", ["model.safetensors", "average.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
)
@pytest.mark.parametrize("damage", ["truncated", "flipped", "deleted"])
def test_a_damaged_checkpoint_is_passed_over_aloud(
    log_lines: list[str], uninterrupted: Path, tmp_path: Path, file: str, damage: str
) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(uninterrupted / "checkpoints", folder)
    newest, before = sorted(folder.glob("step-*"), reverse=True)[:2]
    path = newest / file
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
    else:
        path.unlink()
    found = newest_checkpoint(folder)
    assert found is not None
    assert found.path == before
    assert len(log_lines) == 1
    assert newest.name in log_lines[0]
    shutil.rmtree(before)
    with pytest.raises(InputError, match="no checkpoint can be read"):
        newest_checkpoint(folder)


def test_a_damaged_checkpoint_counts_for_nothing(
    log_lines: list[str], small_store: Store, config: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    """Two good ones are kept beside it, or an older one would be thrown away for its sake."""
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    names = sorted(path.name for path in (run / "checkpoints").glob("step-*"))
    damaged = run / "checkpoints" / "step-0000000099"
    (run / "checkpoints" / names[-1]).rename(damaged)
    (damaged / "state.json").unlink()
    train(small_store.path, run, load_config(config), fold=0, resume="require")
    assert "step-0000000099" in log_lines[0]
    assert tensors(run) == tensors(uninterrupted)
    assert sorted(path.name for path in (run / "checkpoints").glob("step-*")) == names


@pytest.mark.parametrize("has_old_picture", [True, False])
def test_killed_before_the_picture_a_finished_run_gets_it(
    small_store: Store, config: Path, uninterrupted: Path, tmp_path: Path, has_old_picture: bool
) -> None:
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    picture = run / "plots" / "training.png"
    content = picture.read_bytes()
    picture.unlink()
    if has_old_picture:  # as the plan of a timed training leaves it
        picture.write_bytes(b"empty")
        os.utime(picture, (0, 0))
    train(small_store.path, run, load_config(config), fold=0, resume="auto")
    assert picture.read_bytes()[:4] == content[:4] == b"\x89PNG"


def test_two_newest_and_the_best_are_kept(uninterrupted: Path) -> None:
    names = sorted(path.name for path in (uninterrupted / "checkpoints").iterdir())
    assert names == ["best", "step-0000000005", "step-0000000006"]
