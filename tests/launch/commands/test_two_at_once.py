"""Two of one command into one place: the second is refused and names the process at work, which finishes."""

import json
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from first_of_two import first_of_two
from forked import Forked
from small_trainings import set_options, start

import attunet as attunet_in_python
from attunet.errors import InputError
from attunet.launch.commands.label_maps import writing_label_maps
from attunet.system import lock


@pytest.fixture
def first(tmp_path: Path, monkeypatch) -> Callable[..., Forked]:
    """Starts a command and returns when it holds the lock of `out`; `finish` lets it go on."""
    monkeypatch.setattr(lock, "POLL_S", 0.05)

    def call(out: Path, *arguments: object) -> Forked:
        path = out.with_name(f".{out.name}.lock")
        process = Forked(first_of_two, path, tmp_path / "go", [str(argument) for argument in arguments])
        assert any(line == "locked\n" for line in process.stdout), process.returncode
        return process

    return call


def finish(process: Forked, go_on: Path) -> None:
    go_on.touch()
    printed = process.communicate(timeout=240)[0]
    assert process.returncode == 0, printed


@pytest.mark.slow
@pytest.mark.parametrize("command", ["predict", "export", "evaluate", "crossvalidate", "benchmark"])
def test_the_second_of_two_is_refused_and_the_first_finishes(
    command: str, first, small_store, run: Path, artefact: Path, tmp_path: Path, attunet
) -> None:
    scans, shortly, store = small_store.path / "../source", ["--latency-seconds", 0.01], small_store.path
    out = tmp_path / {"export": "model.onnx"}.get(command, "out")
    arguments: dict[str, list[object]] = {
        "predict": ["predict", artefact, scans, out],
        "export": ["export", run, out],
        "evaluate": ["evaluate", store, artefact, "--out", out, *shortly],
        "crossvalidate": [
            *["crossvalidate", store, out, "--model", "unet", "--folds", "0", *set_options("optim.epochs=1")]
        ],
        "benchmark": ["benchmark", artefact, store, "--out", out, "--provider", "cpu", *shortly],
    }
    if command == "evaluate":
        out.mkdir()
    working = first(out, *arguments[command])
    for call in (arguments[command], *([["report", out]] if command == "evaluate" else [])):
        refused = attunet(*call)
        assert refused.code == 2
        in_use = rf"error: .*: in use by process {working.pid} on .*; one [a-z -]+ at a time .*\n"
        assert re.fullmatch(in_use, refused.err)
    calls: dict[str, Callable[[], object]] = {
        "export": lambda: attunet_in_python.export(run, out),
        "evaluate": lambda: attunet_in_python.evaluate(store, [artefact], out),
    }
    if command in calls:
        with pytest.raises(InputError, match=f"in use by process {working.pid} "):
            calls[command]()
    finish(working, tmp_path / "go")
    made = {"predict": "01-T2SPIR-src.nii.gz", "export": ".", "benchmark": "benchmark.md"}.get(command, "results.md")
    assert (out / made).exists() if command != "export" else out.is_file()
    assert not list(tmp_path.rglob("*.lock"))


SHARE = """
import sys, time
from pathlib import Path
from attunet.launch.commands.label_maps import writing_label_maps
from attunet.system import lock
lock.BEAT_S = 0.05
with writing_label_maps(Path(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3]))):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("working", "other", "is_refused"),
    [((0, 2), (0, 1), True), ((0, 1), (1, 3), True), ((1, 3), (0, 2), True), ((0, 2), (1, 2), False)],
)
def test_a_folder_of_label_maps_is_shared_by_one_number_of_processes(
    working: tuple[int, int], other: tuple[int, int], is_refused: bool, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(lock, "POLL_S", 0.05)
    out = tmp_path / "out[1]"
    with start([sys.executable, "-c", SHARE, out, *working]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        refused = pytest.raises(InputError, match=f"in use by process {process.pid} ") if is_refused else nullcontext()
        with refused, writing_label_maps(out, other):
            pass
        process.kill()
    with writing_label_maps(out, (0, 1)):  # a dead one's lock keeps nobody out
        pass
    assert list(tmp_path.iterdir()) == []


def test_locks_that_a_killed_array_left_on_other_machines_are_watched_together(
    tmp_path: Path, monkeypatch, caplog
) -> None:
    """Of a hundred, each after another would take an hour and a half."""
    monkeypatch.setattr(lock, "SILENT_S", 0.2)
    monkeypatch.setattr(lock, "POLL_S", 0.05)
    caplog.set_level("INFO")
    for number in range(3):
        holder = {"host": f"node{number}", "pid": 1, "place": f"node{number}"}
        (tmp_path / f".out.{number}-of-3.lock").write_text(json.dumps(holder))
    with writing_label_maps(tmp_path / "out", (0, 2)):
        assert [path.name for path in tmp_path.iterdir()] == [".out.0-of-2.lock"]
    assert len(caplog.messages) == 1
    assert re.search(r"out: locked by process 1 on node\d and 2 more; waiting up to", caplog.text)
