"""Files that are whole or not there, also after a process was killed while it wrote one."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from file_limit import file_limit

from attunet.errors import InputError, RunError
from attunet.system.atomic_files import write_error, write_file, write_folder, write_text

KILLED = """
import os, signal, sys
from pathlib import Path
from attunet.system.atomic_files import write_file

def write(temporary):
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

write_file(Path(sys.argv[1]), write)
"""

SLOW = """
import sys
from pathlib import Path
from attunet.system.atomic_files import write_file

def write(temporary):
    temporary.write_text("half")
    print("half", flush=True)
    sys.stdin.readline()
    with temporary.open("a") as file:
        file.write("whole")

write_file(Path(sys.argv[1]), write)
print("whole", flush=True)
"""


def can_unshare() -> bool:
    command = ["unshare", "--pid", "--fork", "true"]
    return shutil.which("unshare") is not None and subprocess.run(command, check=False).returncode == 0


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    path = tmp_path / "labels[1].txt"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1
    (left,) = tmp_path.iterdir()
    is_own = left.name.partition(".partial.")[0].removeprefix(f".{killed_id(left)}")
    names = [f".{os.getppid()}{is_own}", f".{killed_id(left)}-0123abcd", ".note", ".note-0123abcd"]
    others = [tmp_path / f"{name}.partial.{path.name}" for name in names]
    for other in others:
        other.write_text("another process writes this, here or on another machine")
    write_text(path, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])
    assert path.read_text() == "whole"
    os.utime(others[1], (0, 0))
    write_text(path, "whole")
    assert not others[1].exists(), "nothing was written there for a day"


def killed_id(left: Path) -> str:
    return left.name.split(".")[1].partition("-")[0]


@pytest.mark.skipif(not can_unshare(), reason="this user may not make process namespaces")
def test_containers_that_share_a_folder_do_not_share_temporary_files(tmp_path: Path) -> None:
    """The first process of each has the id 1."""
    path = tmp_path / "labels.txt"
    container = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", SLOW, str(path)]
    slow = subprocess.Popen(container, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert slow.stdout is not None
    assert slow.stdout.readline() == "half\n"
    quick = subprocess.run([*container, "quick"], input="\n", capture_output=True, text=True, check=True)
    assert quick.stdout == "half\nwhole\n"
    assert slow.communicate("\n")[0] == "whole\n"
    assert path.read_text() == "halfwhole"
    assert list(tmp_path.iterdir()) == [path]


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 248 + ".nii.gz", "ö" * 124 + ".nii.gz", os.fsdecode(b"b\xffc.nii.gz")):
        write_text(tmp_path / name, "whole")
        assert (tmp_path / name).read_text() == "whole"
    assert len(list(tmp_path.iterdir())) == 3


def test_long_names_with_one_end_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    paths = [tmp_path / f"{patient}{'x' * 230}.txt" for patient in ("anna", "bert")]
    both = Barrier(2)

    def write(path: Path) -> None:
        def content(temporary: Path) -> None:
            temporary.write_text(path.name)
            both.wait(timeout=20)

        write_file(path, content)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, paths))
    assert [path.read_text() for path in paths] == [path.name for path in paths]


def test_a_full_disk_is_no_wrong_path(tmp_path: Path) -> None:
    full, wrong = OSError(errno.ENOSPC, "No space left on device"), OSError(errno.ENOTDIR, "Not a directory", "a/b")
    assert isinstance(write_error(tmp_path, full), RunError)
    assert str(write_error(tmp_path, full)) == f"{tmp_path}: cannot be written: No space left on device"
    assert isinstance(write_error(tmp_path, wrong), InputError)
    assert str(write_error(tmp_path, wrong)) == "a/b: cannot be written: Not a directory"


@pytest.mark.parametrize("folder", [".", "/", "there"])
def test_a_folder_is_no_file_to_write(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="must be the name of a file, and is a folder"):
        write_text(Path(folder), "text")
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_copy_that_has_no_room_names_its_target(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(5000))
    with file_limit(1000), pytest.raises(OSError, match="File too large") as error:
        write_folder(tmp_path / "out", {"copy": lambda path: shutil.copyfile(tmp_path / "source", path)})
    assert str(write_error(tmp_path / "out", error.value)).startswith(f"{tmp_path / 'out.partial/copy'}: ")


@pytest.mark.parametrize("ending", [".partial", ".replaced"])
def test_a_users_folder_in_the_place_of_an_unfinished_one_stays(ending: str, tmp_path: Path) -> None:
    mine, files = tmp_path / f"out{ending}", {"new": lambda path: path.write_text("new")}
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=rf"out\{ending}: is needed for unfinished work, and holds notes.txt"):
        write_folder(tmp_path / "out", files)
    assert list(tmp_path.rglob("*.*")) == [mine, mine / "notes.txt"]
    (mine / "notes.txt").rename(mine / "new")
    write_folder(tmp_path / "out", files)
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
