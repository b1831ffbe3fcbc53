"""Results take the place of older ones as a whole: no moment mixes the files of two evaluations."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from attunet.errors import InputError, RunError
from attunet.system import outputs
from attunet.system.outputs import new_results

FILES = ("cases/a/prediction-0.npz", "details.json", "plots/volume_time.png", "results.json", "results.md")


def write(out: Path, text: str, files: tuple[str, ...] = FILES) -> None:
    with new_results(out) as new:
        for name in files:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_text(text)


def texts(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): path.read_text() for path in out.rglob("*") if path.is_file()}


def test_new_results_replace_all_of_the_old_ones_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "old", (*FILES, "cases/b/image.npz", "plots/training.png"))
    for name in ("benchmark.md", "benchmark.json", "report.html", "plots/my_figure.png"):
        (out / name).write_text("old")
    write(out, "new")
    assert texts(out) == {**dict.fromkeys(FILES, "new"), "plots/my_figure.png": "old"}


def test_an_evaluation_that_lost_its_folder_writes_nothing_into_that_of_another(tmp_path: Path) -> None:
    """It was suspended; the other took over, and is at work or finished."""
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial/notes.txt").write_text("mine")

    def lost() -> None:
        raise RunError("has taken over")

    def write_both() -> None:
        with new_results(tmp_path, lost) as first:
            (first / "prediction-0.npz").write_text("first")
            write(tmp_path, "second", ("results.json",))
            (first / "results.json").write_text("first")

    with pytest.raises(RunError, match="taken over"):
        write_both()
    assert texts(tmp_path) == {".partial/notes.txt": "mine", "results.json": "second"}


def test_an_error_leaves_the_old_results_as_they_were(tmp_path: Path) -> None:
    folder_as_file = ("results.json", "results.json/file")
    with pytest.raises(OSError, match=r"results\.json"):
        write(tmp_path / "out", "new", folder_as_file)
    assert not (tmp_path / "out").exists()
    write(tmp_path / "out", "old")
    with pytest.raises(OSError, match=r"results\.json"):
        write(tmp_path / "out", "new", folder_as_file)
    assert texts(tmp_path / "out") == dict.fromkeys(FILES, "old")


def stop_after(done: int, stop: Callable[[], object]) -> Callable[[Path, Path], None]:
    """A replacement for os.replace that calls `stop` once so many files are in place."""
    replace, places = os.replace, iter(range(done))

    def stopping(file: Path, target: Path) -> None:
        if next(places, None) is None:
            stop()
        replace(file, target)

    return stopping


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("done", range(len(FILES)))
def test_results_that_are_stopped_while_they_come_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    out = tmp_path / "out"
    write(out, "old")
    monkeypatch.setattr(outputs.os, "replace", stop_after(done, interrupt))
    with pytest.raises(KeyboardInterrupt):
        write(out, "new")
    assert not texts(out)


@pytest.mark.parametrize("done", range(len(FILES)))
def test_nothing_of_killed_results_stays_beside_the_next_ones(tmp_path: Path, done: int) -> None:
    out = tmp_path / "out"
    (out / "plots").mkdir(parents=True)
    (out / "plots/my_figure.png").write_text("mine")
    child = os.fork()
    if child == 0:
        os.replace = stop_after(done, lambda: os._exit(9))
        write(out, "killed", (*FILES, "cases/b/image.npz", "plots/outlines_b.png"))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not (out / "results.json").exists()
    write(out, "new")
    assert texts(out) == {**dict.fromkeys(FILES, "new"), "plots/my_figure.png": "mine"}


def test_a_mark_of_other_work_makes_no_evaluation_of_a_folder(tmp_path: Path) -> None:
    """As a store has it whose `prepare` was killed after its last step."""
    (tmp_path / ".unfinished").write_text("prepare")
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(InputError, match=r"holds a report\.html of something else"):
        outputs.require_own_folder(tmp_path, "an evaluation")
    outputs.remove_mark(tmp_path, "phantom")
    assert (tmp_path / ".unfinished").exists()
    outputs.remove_mark(tmp_path, "prepare")
    assert not (tmp_path / ".unfinished").exists()
