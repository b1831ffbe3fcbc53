"""Results take the place of older ones as a whole: no moment mixes the files of two evaluations."""

import os
from pathlib import Path

import pytest

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


def test_an_error_leaves_the_old_results_as_they_were(tmp_path: Path) -> None:
    folder_as_file = ("results.json", "results.json/file")
    with pytest.raises(OSError, match=r"results\.json"):
        write(tmp_path / "out", "new", folder_as_file)
    assert not (tmp_path / "out").exists()
    write(tmp_path / "out", "old")
    with pytest.raises(OSError, match=r"results\.json"):
        write(tmp_path / "out", "new", folder_as_file)
    assert texts(tmp_path / "out") == dict.fromkeys(FILES, "old")


@pytest.mark.parametrize("done", range(len(FILES) + 1))
def test_a_folder_with_results_json_is_of_one_evaluation_wherever_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    out, left, replace = tmp_path / "out", done, os.replace

    def stopped(file: Path, target: Path) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        replace(file, target)

    write(out, "old")
    monkeypatch.setattr(outputs.os, "replace", stopped)
    if done < len(FILES):
        with pytest.raises(KeyboardInterrupt):
            write(out, "new")
        assert not (out / "results.json").exists()
        assert set(texts(out).values()) <= {"new"}
    else:
        write(out, "new")
        assert texts(out) == dict.fromkeys(FILES, "new")
