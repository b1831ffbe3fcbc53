"""One uninterrupted training of one process, and one of two, to compare interrupted ones with."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from attunet.store import Store

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
    """`kill_and_resume(folder, moments, processes="1")`: the rows that the function of this name prints."""
    from forked import Forked
    from kill_and_resume import kill_and_resume

    def run(folder: Path, moments: Sequence[int | str], processes: str = "1") -> list[dict]:
        counts = [int(count) for count in processes.split(",")]
        trainings = Forked(kill_and_resume, small_store.path, folder, config, counts, [*map(str, moments)])
        printed = trainings.communicate()[0]
        assert trainings.returncode == 0, printed
        return [json.loads(line) for line in printed.splitlines() if line.startswith('{"moment"')]

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
