"""One uninterrupted training of one process, and one of two, to compare interrupted ones with."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from attunet.store import Store

PROGRAM = Path(__file__).with_name("kill_and_resume.py")
TRAININGS = str(Path(__file__).parents[2] / "trainings")
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

KillAndResume = Callable[..., list[dict]]


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="session")
def kill_and_resume(small_store: Store, config: Path) -> KillAndResume:
    """`kill_and_resume(folder, moments, processes="1")`: the rows that the program of this name prints."""

    def run(folder: Path, moments: Sequence[int | str], processes: str = "1") -> list[dict]:
        command = [sys.executable, PROGRAM, small_store.path, folder, config, processes, *moments]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": TRAININGS}
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True, env=environment)
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.fixture(scope="session")
def uninterrupted(kill_and_resume: KillAndResume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    assert kill_and_resume(folder, [0]) == [{"moment": "0", "codes": [0]}]
    return folder / "0"


@pytest.fixture(scope="session")
def uninterrupted_pair(kill_and_resume: KillAndResume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference-pair")
    assert kill_and_resume(folder, [0], "2") == [{"moment": "0", "codes": [0]}]
    return folder / "0"
