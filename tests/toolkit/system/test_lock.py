"""Two of one command on one folder: the second is refused, and nothing is lost."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from attunet.config import DataConfig
from attunet.errors import InputError, RunError
from attunet.preparation.prepare import prepare
from attunet.store import open_store
from attunet.system.lock import InUse, Lock, place, writing

HOLD = """
import sys, time
from pathlib import Path
from attunet.system import lock
lock.BEAT_S = 0.05
with lock.writing(Path(sys.argv[1]), "prepare"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another process that writes `tmp_path/out/store`, and shows it more often than every 5 seconds."""
    monkeypatch.setattr("attunet.system.lock.POLL_S", 0.05)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out" / "store")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_prepare_is_refused_and_leaves_nothing(holder, source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"out/store: in use by process {holder.pid} on .*; one prepare at a time"):
        prepare(source, tmp_path / "out" / "store", DataConfig())
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".store.lock"]


def test_a_second_thread_takes_over_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process has the same id, as that of a dead one whose id came again."""
    for name in ("BEAT_S", "POLL_S"):
        monkeypatch.setattr(f"attunet.system.lock.{name}", 0.05)
    with writing(tmp_path / "out", "prediction") as first:
        with pytest.raises(InUse, match="in use by process"), writing(tmp_path / "out", "prediction"):
            pass
        first.check()
    with writing(tmp_path / "out", "prediction"):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(holder, source: Path, tmp_path: Path) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    prepare(source, tmp_path / "out" / "store", DataConfig())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["store"]


def test_a_prepare_that_lost_its_lock_makes_no_store(source: Path, tmp_path: Path, monkeypatch) -> None:
    def lost(lock: Lock) -> None:
        raise RunError("another has taken over")

    monkeypatch.setattr(Lock, "check", lost)
    with pytest.raises(RunError, match="taken over"):
        prepare(source, tmp_path / "store", DataConfig())
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        Path.mkdir,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path.with_name("nothing")),
    ],
    ids=["pipe", "folder", "link to a device", "link to nothing"],
)
def test_what_is_no_lock_is_refused_by_name(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / ".out.lock")
    with pytest.raises(InputError, match=r"/\.out\.lock: .*; remove it"), writing(tmp_path / "out", "export"):
        pass


def test_a_dead_lock_that_another_process_is_about_to_remove_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / ".out.lock"
    path.write_text(json.dumps({"host": "a", "place": place(), "pid": 2**22 + 1}))
    held, taken = threading.Event(), threading.Event()

    def take() -> None:
        held.wait()
        with writing(tmp_path / "out", "export"):
            taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        held.set()
        assert not taken.wait(0.5)
        assert path.exists()
    assert taken.wait(10)
    thread.join()


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"[" * 100_000, b'{"pid": 1180591620717411303424}', b'{"pid": -1}', b"0" * 10**6]
)
def test_the_lock_of_nobody_is_taken_over(content: bytes, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("attunet.system.lock.SILENT_S", 0.2)
    (tmp_path / ".out.lock").write_bytes(
        content.replace(b"{", b'{"host": "a", "place": ' + json.dumps(place()).encode() + b", ")
    )
    with writing(tmp_path / "out", "export"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_folders_that_were_made_for_the_lock_are_removed_again(tmp_path: Path) -> None:
    with writing(tmp_path / "a" / "b" / "out", "export"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()


def test_a_folder_has_one_lock_under_all_its_names(holder, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "out" / "store").mkdir()
    (tmp_path / "link").symlink_to("out/store")
    monkeypatch.chdir(tmp_path / "out" / "store")
    for name in (".", "../store", tmp_path / "link"):
        with pytest.raises(InputError, match=f"in use by process {holder.pid}"), writing(Path(name), "prediction"):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder in whose place its process may not write")
def test_a_folder_above_which_nothing_may_be_written_holds_its_lock() -> None:
    with tempfile.TemporaryDirectory() as above:  # pytest's own folders are closed to other users
        os.chmod(above, 0o755)
        (out := Path(above, "out")).mkdir()
        os.chown(out, 65534, 65534)
        code = HOLD.replace("with ", "import os; os.setuid(65534)\nwith ").replace(
            "time.sleep(60)", "print(os.listdir())"
        )
        command = [sys.executable, "-c", code, "."]
        done = subprocess.run(command, cwd=out, capture_output=True, text=True, check=True)
        assert done.stdout == "held\n['.out.lock']\n"
        assert list(Path(above).rglob("*")) == [out]


@pytest.mark.slow
def test_of_two_prepares_with_other_settings_one_is_whole(source: Path, tmp_path: Path) -> None:
    def start(spacing: float) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "attunet.launch.cli", "prepare", str(source), str(tmp_path / "store")]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([*command, f"--set=data.spacing_mm={spacing}"], **pipes)

    first = start(2.0)
    time.sleep(0.3)
    second = start(3.0)
    errors = [process.communicate(timeout=200)[1] for process in (first, second)]
    assert 0 in (first.returncode, second.returncode)
    assert all("Traceback" not in text for text in errors)
    store = open_store(tmp_path / "store")
    assert store.spec.spacing_mm in (2.0, 3.0)
    assert not list(tmp_path.glob("*.partial"))
