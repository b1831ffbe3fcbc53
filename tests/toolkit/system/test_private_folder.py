"""Temporary folders with users' data: removed on any end of a command, or by the next one."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from attunet.system.atomic_files import ABANDONED_S
from attunet.system.private_folder import PREFIX, PrivateFolder


@pytest.fixture
def archive(tmp_path: Path, write_case: Callable[..., object]) -> Path:
    """Scans that `inspect` looks at for a while."""
    for number in range(3):
        write_case(tmp_path / "scans", f"{number}-T2", seed=number, shape=(192, 192, 40))
    return Path(shutil.make_archive(str(tmp_path / "scans"), "zip", tmp_path / "scans"))


@pytest.mark.usefixtures("hangup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_an_inspection_that_is_stopped_leaves_no_scans(
    attunet: Callable[..., object], archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "attunet.launch.cli", "inspect", archive]
    process = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(temporary)}, stdout=subprocess.DEVNULL)
    while not (scans := list(temporary.rglob("2-T2-mask.nii.gz"))):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    killed = number == signal.SIGKILL
    assert process.wait(timeout=60) == (-number if killed else 128 + number)
    assert [path.is_file() for path in scans] == [killed]
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with PrivateFolder() as folder:
        assert list(temporary.iterdir()) == [folder.path]
    assert not list(temporary.iterdir())


def test_folders_of_others_and_of_living_processes_stay(tmp_path: Path) -> None:
    (tmp_path / "attunet-results").mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "attunet-results")
    with PrivateFolder(tmp_path) as first:
        (first.path / "scan").touch()
        with PrivateFolder(tmp_path):
            assert (first.path / "scan").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"attunet-results", f"{PREFIX}link"}


@pytest.mark.parametrize("has_locks", [True, False])
def test_among_users_files_what_another_machine_left_goes_after_a_day(
    has_locks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a killed container, whose successor has another name; and where no lock tells, of the same machine."""
    if not has_locks:
        monkeypatch.setattr(fcntl, "flock", refuse)
    elsewhere, here = ".attunet-temporary-01234567-", PREFIX
    for prefix in (elsewhere, here):
        for age, name in ((2 * ABANDONED_S, "old"), (60.0, "new")):
            (tmp_path / f"{prefix}{name}").mkdir()
            os.utime(tmp_path / f"{prefix}{name}", times=(time.time() - age,) * 2)
    with PrivateFolder(tmp_path):
        assert (tmp_path / f"{elsewhere}old").is_dir()  # a server may have been idle for so long
    with PrivateFolder(tmp_path, is_brief=True) as folder:
        left = {path.name for path in tmp_path.iterdir()} - {folder.path.name}
    assert left == ({f"{elsewhere}new"} if has_locks else {f"{elsewhere}new", f"{here}new"})


def refuse(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_without_file_locks_there_are_folders_and_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on some file systems of clusters."""
    monkeypatch.setattr(fcntl, "flock", refuse)
    with PrivateFolder(tmp_path) as first, PrivateFolder(tmp_path):
        assert len(list(tmp_path.iterdir())) == 2
        assert first.path.is_dir()
    assert not list(tmp_path.iterdir())


def test_a_folder_has_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11 keeps that of its parent: what reads files in it may name them by their whole paths."""
    monkeypatch.chdir(tmp_path)
    with PrivateFolder(Path("a")) as folder:
        assert folder.path.parent == tmp_path / "a"
