"""A benchmark's program: what it prints can be distrusted by its own words,
and an error is one line with the right code.
"""

import argparse
import json
import sys
from pathlib import Path

import pytest

from attunet.benchmarks.speed.program import program_parser, run_program
from attunet.errors import InputError, RunError


def options(*words: str) -> argparse.Namespace:
    return program_parser(None, plot=True).parse_args(words)


def test_the_last_line_and_the_file_say_how_it_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["program", "--size", "a b"])
    drawn: list[Path] = []
    chosen = options("--json", str(tmp_path / "r.json"), "--plot", str(tmp_path / "r.png"))
    run_program(
        "operations.gate",
        chosen,
        lambda: {"rows": [1]},
        lambda results: f"{len(results['rows'])} row",
        lambda results, path: drawn.append(path),
    )
    table, line = capsys.readouterr().out.splitlines()
    assert table == "1 row"
    assert json.loads(line) == json.loads((tmp_path / "r.json").read_text())
    assert json.loads(line) == {
        "schema": 1,
        "command": "python -m attunet.benchmarks.speed.operations.gate --size 'a b'",
        "rows": [1],
    }
    assert drawn == [tmp_path / "r.png"]


@pytest.mark.parametrize(("error", "code"), [(InputError("wrong"), 2), (RunError("failed"), 1)])
def test_an_error_is_one_line(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def measure() -> dict:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_program("operations.gate", options(), measure, str)
    assert ended.value.code == code
    assert capsys.readouterr().err == f"error: {error}\n"
