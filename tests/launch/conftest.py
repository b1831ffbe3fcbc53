"""A small trained run with its artefact."""

from pathlib import Path

import pytest
from small_trainings import set_options

from attunet.launch.cli import cli
from attunet.launch.exit_codes import run_command
from attunet.store import Store


@pytest.fixture(scope="session")
def run(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An attention U-Net, trained for a moment on the small store."""
    path = tmp_path_factory.mktemp("trained") / "small"
    options = set_options("optim.epochs=2 optim.batch_size=auto run.device=auto")
    assert run_command(cli, "attunet", ["train", str(small_store.path), str(path), "--fold=0", *options]) == 0
    return path


@pytest.fixture(scope="session")
def artefact(run: Path) -> Path:
    """That run, exported with the maps of its gates."""
    path = run.parent / "small.onnx"
    outputs = [f"--output={name}" for name in ("labels", "logits", "attention")]
    assert run_command(cli, "attunet", ["export", str(run), str(path), *outputs]) == 0
    return path
