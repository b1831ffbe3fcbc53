"""Nothing short of losing the disk costs more than the steps since the last checkpoint."""

import json
import random
import signal
from pathlib import Path

import pytest
from forked import Forked, start_forked
from small_trainings import read_until, train_arguments, wait_until

from attunet.runs.load_run import load_run
from attunet.runs.run_folder import read_metrics
from attunet.store import Store

TENSORS = ("model", "average", "optimizer")
SOAK = (pytest.mark.soak, pytest.mark.timeout(7200))


def tensors(run: Path) -> dict[str, bytes]:
    last = max((run / "checkpoints").glob("step-*"))
    return {name: (last / f"{name}.safetensors").read_bytes() for name in TENSORS}


# The first four writes are of config.toml and environment.json; then come checkpoints of eight, one after each step.
# Three steps are an epoch, so training goes on in the middle of one and at its edge.
SOME_WRITES = {"one": [3, 6, 9, 14, 20, 28, 31, 40], "two": [14, 29]}


def random_moments(run: Path, count: int, seed: int) -> list[str]:
    """Seconds spread over the whole of a training as long as `run` was, its start and its end included."""
    longest = 1.2 * read_metrics(run)[-1]["seconds"] + 0.5
    return [f"{random.Random(seed + number).uniform(0.1, longest):.4f}" for number in range(count)]


@pytest.mark.parametrize(
    ("moments", "min_killed"),
    [
        pytest.param("some writes", 1.0, marks=pytest.mark.slow),
        pytest.param("random", 0.0, marks=pytest.mark.slow),
        pytest.param("every write", 0.64, marks=SOAK),
        pytest.param("often random", 0.5, marks=SOAK),
    ],
)
@pytest.mark.parametrize("processes", ["one", "two"])
def test_killed_and_resumed_gives_the_same_weights(
    kill_and_resume, request, tmp_path: Path, processes: str, moments: str, min_killed: float
) -> None:
    """At writes of the first process, or at random moments of any; min_killed: share that has to be killed in time."""
    whole = request.getfixturevalue("uninterrupted" if processes == "one" else "uninterrupted_pair")
    chosen = {
        "some writes": SOME_WRITES[processes],
        "every write": list(range(1, 80)),
        "random": random_moments(whole, 4 if processes == "one" else 2, seed=7),
        "often random": random_moments(whole, 40, seed=100),
    }[moments]
    rows = kill_and_resume(tmp_path, chosen, "1" if processes == "one" else "2")
    for row in rows:
        assert row["codes"][-1] == 0, row
        assert tensors(tmp_path / row["moment"]) == tensors(whole), row
    assert sum(row["codes"][0] == -signal.SIGKILL for row in rows) >= min_killed * len(chosen)


def samples_of_steps(path: Path) -> dict[tuple[int, int], list[int]]:
    """(processes, step) -> samples, ascending, but for attempts that were killed in the middle of the step."""
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
    kill_and_resume, uninterrupted: Path, tmp_path: Path
) -> None:
    (row,) = kill_and_resume(tmp_path, [17], "2,1,2")
    assert row["codes"] == [-signal.SIGKILL, -signal.SIGKILL, 0]
    alone = samples_of_steps(uninterrupted.with_suffix(".samples"))
    mixed = samples_of_steps(tmp_path / "17.samples")
    assert {processes for processes, _ in mixed} == {1, 2}
    assert {step for _, step in mixed} == {step for _, step in alone} == set(range(6))
    assert all(taken == alone[1, step] for (_, step), taken in mixed.items())


def start_training(store: Store, run: Path, config: Path, *options: str) -> Forked:
    return start_forked(train_arguments(store, run, "--config", str(config), *options))


def wait_for_steps(run: Path, process: Forked) -> None:
    wait_until((run / "metrics.jsonl").exists, process)


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
    read_until(f"resuming at step {stopped_at}", process)
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
    read_until("slices", third)
    third.kill()
    third.wait()
