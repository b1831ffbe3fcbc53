"""Who may write in a run folder: locks of the living and the dead, here and on other machines,
whatever their clocks say.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from attunet.errors import InputError, RunError
from attunet.runs.run_folder import RunFolder, read_metrics
from attunet.system import lock
from attunet.system.atomic_files import write_folder

A_DAY_S = 86400


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.05)
    monkeypatch.setattr(lock, "POLL_S", 0.02)
    monkeypatch.setattr(lock, "SILENT_S", 1.0)


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this process is on another machine."""
    monkeypatch.setattr(lock, "place", lambda: "node8 of a cluster")


def leave_lock(run: Path, content: str, age_s: float = 0) -> Path:
    run.mkdir(exist_ok=True)
    path = run / "run.lock"
    path.write_text(content)
    os.utime(path, (time.time() - age_s,) * 2)
    return path


OTHER_HOST = json.dumps({"host": "node7", "pid": 4711, "place": "node7 of a cluster", "token": "x"})


def test_a_living_holder_on_another_machine_keeps_its_run(
    log_lines: list[str], quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunFolder(tmp_path) as holder:
        os.utime(tmp_path / "run.lock", (0, 0))  # the time it bears says nothing
        elsewhere(monkeypatch)
        with (
            pytest.raises(InputError, match=f"in use by process {os.getpid()} on .*; one training at a time"),
            RunFolder(tmp_path),
        ):
            pass
        holder.check_held()
    assert "waiting up to" in log_lines[0]
    assert not (tmp_path / "run.lock").exists()


@pytest.mark.parametrize("age_s", [-A_DAY_S, 0, A_DAY_S], ids=["a clock ahead", "just touched", "long ago"])
@pytest.mark.parametrize("content", [OTHER_HOST, "", '{"host": "node7"'], ids=["another host", "empty", "cut off"])
def test_a_silent_lock_is_a_dead_ones(
    quick: None, log_lines: list[str], tmp_path: Path, content: str, age_s: float
) -> None:
    leave_lock(tmp_path, content, age_s)
    with RunFolder(tmp_path) as folder:
        folder.log("train", step=1)
    assert len(log_lines) == 1
    assert ("process 4711 on node7" if content == OTHER_HOST else "an unknown process") in log_lines[0]


def test_a_process_that_is_gone_from_this_machine_is_not_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SILENT_S", 1e6)
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    gone = {"host": "here", "pid": int(child.stdout), "place": lock.place(), "token": "x"}
    leave_lock(tmp_path, json.dumps(gone))
    with RunFolder(tmp_path):
        pass


def test_a_holder_that_was_taken_over_writes_nothing_more(quick: None, tmp_path: Path) -> None:
    """As after a process was stopped for longer than its lock lasts."""
    with RunFolder(tmp_path) as folder:
        folder.log("train", step=1)
        stolen = leave_lock(tmp_path, OTHER_HOST)
        with pytest.raises(RunError, match="process 4711 on node7 has taken over"):
            folder.log("train", step=2)
    assert stolen.read_text() == OTHER_HOST, "the other one's lock stays"
    assert len(folder.metrics.read_text().splitlines()) == 1


def test_a_disk_too_full_for_the_lock_keeps_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, mode: str) -> None:
        os.close(descriptor)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lock.os, "fdopen", full)
    with pytest.raises(RunError, match="cannot be written: No space left on device"), RunFolder(tmp_path):
        pass
    assert not (tmp_path / "run.lock").exists()


def describe(run: Path) -> None:
    """The folder becomes one of a training."""
    (run / "environment.json").write_text('{"data_tier": "resident"}')


def write_numbers(number: int) -> dict[str, Callable[[Path], object]]:
    return {"a": lambda path: path.write_text(str(number)), "b": lambda path: path.write_text(str(-number))}


@pytest.mark.parametrize("crash_at", [1, 2])
def test_a_folder_that_is_replaced_is_there_before_and_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    """`best` is the one checkpoint that is replaced: killed between the two renames,
    it is moved away and the new one is not there.
    """
    path, renames, rename = tmp_path / "checkpoints" / "best", [], os.rename
    describe(tmp_path)
    write_folder(path, write_numbers(1))

    def crash(before: Path, after: Path) -> None:
        renames.append(after)
        if len(renames) == crash_at:
            raise KeyboardInterrupt
        rename(before, after)

    monkeypatch.setattr(os, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        write_folder(path, write_numbers(2))
    monkeypatch.undo()
    with RunFolder(tmp_path):
        assert (path / "a").read_text() == "1"
        assert sorted(entry.name for entry in path.parent.iterdir()) == ["best"]
        write_folder(path, write_numbers(3))
    assert (path / "a").read_text() == "3"


def test_a_number_that_is_not_finite_is_null_in_the_log(tmp_path: Path) -> None:
    """A gradient norm overflows now and then in float16; `Infinity` is no JSON."""
    with RunFolder(tmp_path) as folder:
        folder.log("train", step=1, grad_norm=float("inf"), loss=0.5, dice=[float("nan"), 1.0])

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    (line,) = folder.metrics.read_text().splitlines()
    assert json.loads(line, parse_constant=refuse) == {
        "event": "train",
        "step": 1,
        "grad_norm": None,
        "loss": 0.5,
        "dice": [None, 1.0],
    }


def test_a_line_that_no_training_has_written_is_left_out(tmp_path: Path) -> None:
    rows = [
        {"event": "train", "step": 1, "epoch": 0.5, "seconds": 1.5, "loss": None},
        {
            "event": "validation",
            "step": 1,
            "epoch": 1,
            "seconds": 2,
            "loss": 0.5,
            "dice": {"mean": None, "per_class": {}},
        },
        {"event": "native", "step": 2, "epoch": 1.0, "seconds": 2, "dice": {"mean": 0.5, "per_class": {"liver": 0.5}}},
        {"event": "speed", "step": 2, "epoch": 1.0, "seconds": 2.5, "slices_per_s": 3.0},
    ]
    train, validation, native, _ = rows
    others = [[], {}, 1, None, {"event": "train"}, {**train, "step": "1"}, {**train, "epoch": None}, native["dice"]]
    others += [
        {**train, "loss": "low"},
        {**train, "seconds": [2]},
        {**validation, "dice": None},
        {**native, "dice": 0.5},
    ]
    others += [{**native, "dice": {"mean": 0.5, "per_class": {"liver": "0.5"}}}, {**train, "event": ["train"]}]
    lines = [json.dumps(row).encode() for row in (*rows, *others)]
    lines[2:2] = [b"\xff\xfe", bytes(300), lines[0][:-3], b"[" * 100_000, b"\xc2\x85"]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    describe(tmp_path)
    assert read_metrics(tmp_path) == rows
    RunFolder(tmp_path).forget_after(2)
    assert read_metrics(tmp_path) == rows[:2]  # of the end, which comes again
    RunFolder(tmp_path).forget_after(0)
    assert read_metrics(tmp_path) == []


def test_snapshots_of_steps_that_are_repeated_are_of_another_training(tmp_path: Path) -> None:
    for step in (9, 10, 11):
        write_folder(tmp_path / f"snapshots/step-{step:010d}", {"state.json": lambda path: path.write_text("{}")})
    describe(tmp_path)
    RunFolder(tmp_path).forget_after(10)
    assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == ["step-0000000009", "step-0000000010"]
    RunFolder(tmp_path).forget_after(0)
    assert not list((tmp_path / "snapshots").iterdir())


def test_the_best_of_a_training_without_a_checkpoint_goes_with_a_new_one(tmp_path: Path) -> None:
    """It may have other cases, and their names."""
    describe(tmp_path)
    write_folder(tmp_path / "checkpoints/best", {"state.json": lambda path: path.write_text("{}")})
    RunFolder(tmp_path).forget_after(10)
    assert (tmp_path / "checkpoints/best").is_dir()
    RunFolder(tmp_path).forget_after(0)
    assert not (tmp_path / "checkpoints/best").exists()


def test_a_path_that_safetensors_cannot_open_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must have a path in UTF-8"):
        RunFolder(tmp_path / "r\udcfcn")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        *("config.toml", "environment.json", "metrics.jsonl", "plots/training.png"),
        *("checkpoints/best/model.pt", "checkpoints/epoch-3.partial/model.pt", "checkpoints/last.ckpt"),
        *("checkpoints/step-9/state.json", "snapshots/step-9/model.pt"),
    ],
)
@pytest.mark.parametrize("has_checkpoints", [False, True])
def test_a_users_file_in_a_folder_that_is_no_run_stays(tmp_path: Path, name: str, *, has_checkpoints: bool) -> None:
    """Other programs make a folder `checkpoints` too."""
    if has_checkpoints:
        (tmp_path / "checkpoints").mkdir()
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="name another folder") as error:
        RunFolder(tmp_path)
    assert Path(*Path(name).parts[:2]).as_posix() in str(error.value)
    assert (tmp_path / name).read_text() == "mine"


def test_a_users_folder_among_the_checkpoints_of_a_run_is_not_cleared(tmp_path: Path) -> None:
    write_folder(tmp_path / "checkpoints/step-0000000009", {"average.safetensors": lambda path: path.write_text("")})
    theirs = [tmp_path / f"checkpoints/epoch-3.{ending}" for ending in ("partial", "replaced")]
    for folder in theirs:
        folder.mkdir()
    (tmp_path / "checkpoints/step-0000000010.partial").mkdir()
    with RunFolder(tmp_path) as run:
        assert sorted(run.checkpoints.iterdir()) == [*theirs, tmp_path / "checkpoints/step-0000000009"]


def test_a_start_that_failed_after_its_description_can_be_repeated(tmp_path: Path) -> None:
    def fail(*names: str) -> None:
        with RunFolder(tmp_path / "run"):
            for name in names:
                (tmp_path / "run" / name).write_text("")
            raise RunError("out of memory")

    with pytest.raises(RunError):
        fail()
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/environment.json").write_text('{"data_tier": "resident"}')
    for _ in range(2):  # the folder of checkpoints is gone, as after a user's `rm -r`
        with pytest.raises(RunError):
            fail("config.toml", "metrics.jsonl")
