"""Two machines, network namespaces with a cable between them: a training over both, and one whose cable is pulled."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_trainings import CONFIGS, set_options, start, train_command, wait_until

from attunet.runs.read_checkpoint import newest_checkpoint, step_folders
from attunet.store import Store

CABLE = "cable"

pytestmark = pytest.mark.soak


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def machines() -> Iterator[list[str]]:
    names = [f"attunet-{os.getpid()}-{number}" for number in (1, 2)]
    try:
        for name in names:
            ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespace can be made here: {error}")
    ip("-n", names[0], "link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", names[1])
    for number, name in enumerate(names, start=1):
        ip("-n", name, "address", "add", f"10.99.0.{number}/24", "dev", CABLE)
        for device in ("lo", CABLE):
            ip("-n", name, "link", "set", device, "up")
    yield names
    for name in names:
        ip("netns", "delete", name)


def launch(machines: list[str], store: Store, run: Path, *settings: str) -> list[subprocess.Popen[str]]:
    meeting = ("--num_machines", 2, "--num_processes", 2, "--main_process_ip", "10.99.0.1")
    options, jobs = set_options("run.log_every=1", *settings), []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": CABLE}
    for rank, name in enumerate(machines):
        launcher = ("--config_file", CONFIGS / "multi_node.yaml", *meeting, "--machine_rank", rank)
        command = train_command(store, run, *options, launcher=launcher)
        jobs.append(start(["ip", "netns", "exec", name, *command], env=environment))
    return jobs


def test_a_training_over_two_machines(machines: list[str], small_store: Store, tmp_path: Path) -> None:
    jobs = launch(machines, small_store, tmp_path / "run", "optim.epochs=2")
    outputs = [job.communicate(timeout=300)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs
    assert [output.count("on the native grid") for output in outputs] == [1, 0], (
        "the first machine's rank 0 alone speaks"
    )
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["num_processes"] == 2


def test_a_machine_that_cannot_be_reached_is_named(machines: list[str], small_store: Store, tmp_path: Path) -> None:
    run = tmp_path / "run"
    jobs = launch(machines, small_store, run, "optim.epochs=1000 run.checkpoint_every_steps=2 run.timeout_minutes=0.2")
    wait_until(lambda: step_folders(run / "checkpoints") != [], jobs[0])
    ip("-n", machines[1], "link", "set", CABLE, "down")
    first = jobs[0].communicate(timeout=200)[0]
    assert jobs[0].returncode != 0
    assert "no sign of life from rank 1 (process " in first
    jobs[1].kill()
    jobs[1].wait()
    assert newest_checkpoint(run / "checkpoints") is not None
