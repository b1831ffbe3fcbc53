"""An error of writing names the file, even where the system does not, as for a limit on the size of files."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_trainings import set_options


def limited(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def attunet(*arguments: object, size: int) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "attunet.launch.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, preexec_fn=limited(size), check=False)


@pytest.mark.parametrize("size", [1000, 20_000])
def test_prepare_names_the_file_that_could_not_be_written(source: Path, tmp_path: Path, size: int) -> None:
    done = attunet("prepare", source, tmp_path / "store", size=size)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    assert str(tmp_path / "store.partial") in done.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_train_names_the_file_that_could_not_be_written(small_store, tmp_path: Path) -> None:
    options = set_options("optim.epochs=1")
    done = attunet("train", small_store.path, tmp_path / "run", "--fold", 0, *options, size=3000)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert str(tmp_path / "run") in done.stderr.splitlines()[-1]
