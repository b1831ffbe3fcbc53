"""Checkpoints that are damaged, and what a kill after the last one leaves undone."""

import os
import shutil
from pathlib import Path

import pytest

from attunet.config import load_config
from attunet.errors import InputError
from attunet.runs.read_checkpoint import newest_checkpoint
from attunet.store import Store
from attunet.training.loop import train

PARTS = ("model", "average", "optimizer")


@pytest.mark.parametrize("file", [*(f"{part}.safetensors" for part in PARTS), "state.json", "manifest.json"])
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
    for part in PARTS:
        file = f"checkpoints/{names[-1]}/{part}.safetensors"
        assert (run / file).read_bytes() == (uninterrupted / file).read_bytes(), part
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
