"""A small trained run with its artefact."""

from pathlib import Path

import pytest

from attunet.launch.cli import cli
from attunet.launch.exit_codes import run_command
from attunet.store import Store

QUICK = (
    "--set",
    "model.base_width=4",
    "--set",
    "model.depth=2",
    "--set",
    "optim.epochs=2",
    "--set",
    "run.mixed_precision=no",
)


@pytest.fixture(scope="session")
def run(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An attention U-Net, trained for a moment on the small store."""
    path = tmp_path_factory.mktemp("trained") / "small"
    assert run_command(cli, "attunet", ["train", str(small_store.path), str(path), "--fold", "0", *QUICK]) == 0
    return path


@pytest.fixture(scope="session")
def artefact(run: Path) -> Path:
    """That run, exported with the maps of its gates."""
    path = run.parent / "small.onnx"
    assert (
        run_command(
            cli,
            "attunet",
            ["export", str(run), str(path), "--output", "labels", "--output", "logits", "--output", "attention"],
        )
        == 0
    )
    return path
