"""The files that start trainings on many processes: configs for Accelerate, the SLURM script, the container."""

import ast
import itertools
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from small_trainings import CONFIGS, set_options, start, train_command

import attunet.launch
from attunet.store import Store

LAUNCH = Path(attunet.launch.__file__).parent
QUICK = ("--config", "demo", *set_options("optim.epochs=1 optim.batch_size=auto"))


def script(path: Path, text: str) -> None:
    path.write_text("#!/usr/bin/env bash\n" + text)
    path.chmod(0o755)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_every_config(path: Path) -> None:
    config_args = pytest.importorskip("accelerate.commands.config.config_args")
    config = config_args.load_config_from_file(str(path))  # raises for a key that it does not know
    assert config.num_processes >= config.num_machines >= 1
    assert config.mixed_precision == "no", "the run decides on the precision"


@pytest.mark.slow
def test_two_launchers_meet_over_the_network(small_store: Store, tmp_path: Path) -> None:
    """The config for several machines, with both launchers on this one, over the loopback interface."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = ("--config_file", CONFIGS / "multi_node.yaml", "--num_machines", 2, "--num_processes", 2)
    meeting = ("--main_process_ip", "127.0.0.1", "--main_process_port", port)
    jobs = []
    for rank in range(2):
        launcher = (*shared, *meeting, "--machine_rank", rank)
        jobs.append(start(train_command(small_store, tmp_path / "run", *QUICK, launcher=launcher)))
    outputs = [job.communicate(timeout=300)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs
    assert [out.count("on the native grid") for out in outputs] == [1, 0], "the first machine's rank 0 alone speaks"
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["num_processes"] == 2


def test_the_slurm_script_starts_one_launcher_per_node(tmp_path: Path) -> None:
    """With stand-ins for SLURM's commands and for the Python that would train."""
    script(tmp_path / "scontrol", "echo node7; echo node8")
    script(tmp_path / "srun", 'shift; for id in 0 1; do SLURM_NODEID=$id "$@"; done')
    script(
        tmp_path / "python",
        f'if [ "$1" = -c ]; then exec {sys.executable} "$@"; fi; printf "%s|" "$WANDB_MODE" "$@"; echo',
    )
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "ATTUNET_PYTHON": str(tmp_path / "python"),
        "SLURM_JOB_ID": "12345",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_CPUS_PER_TASK": "8",
    }
    call = ["bash", str(LAUNCH / "slurm/train.sbatch"), "a store", "run", "--fold", "0"]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    started = [line.split("|")[:-1] for line in done.stdout.splitlines() if line.startswith("offline")]
    assert len(started) == 2
    for rank, words in enumerate(started):
        options = dict(itertools.pairwise(words))
        assert Path(options["--config_file"]).name == "multi_node.yaml"
        assert (options["--num_machines"], options["--num_processes"]) == ("2", "8")
        assert (options["--machine_rank"], options["--main_process_ip"], options["--main_process_port"]) == (
            str(rank),
            "node7",
            "32345",
        )
        assert words[-6:] == ["attunet.launch.train", "a store", "run", "--fold", "0", "--resume=auto"]


def test_the_slurm_script_says_how_it_is_called() -> None:
    done = subprocess.run(
        ["bash", str(LAUNCH / "slurm/train.sbatch")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("usage: sbatch")


def test_the_container_recipe_copies_what_the_build_needs() -> None:
    """No container is built here; a file may have been renamed, or be read by the build and not be copied."""
    root = Path(__file__).parents[2]
    lines = (LAUNCH / "container/Dockerfile").read_text().splitlines()
    copied = {name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]}
    assert all((root / name).exists() for name in copied)
    rooms = re.search(r"ROOMS = (\{.*?\})", (root / "setup.py").read_text(), re.DOTALL).group(1)
    assert {"setup.py", "pyproject.toml", "constraints.txt", "README.md", *ast.literal_eval(rooms).values()} <= copied
    let_through = {line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert let_through == copied
