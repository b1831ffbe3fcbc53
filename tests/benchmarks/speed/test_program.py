"""A benchmark's program: what it prints can be distrusted by its own words,
and an error is one line with the right code.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

import pytest

from attunet.benchmarks.speed.program import choices, program_parser, run_program
from attunet.errors import InputError, RunError


def test_the_last_line_and_the_file_say_how_it_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--size", "a b", "--json", str(tmp_path / "r.json")]
    monkeypatch.setattr(sys, "argv", ["program", *words])
    parser = program_parser(None)
    parser.add_argument("--size")
    run_program(
        "operations.gate",
        parser,
        lambda options: {"rows": [1], **choices(options)},
        lambda results: f"{len(results['rows'])} row",
    )
    table, line = capsys.readouterr().out.splitlines()
    assert table == "1 row"
    assert json.loads(line) == json.loads((tmp_path / "r.json").read_text())
    assert json.loads(line) == {
        "schema": 1,
        "command": f"python -m attunet.benchmarks.speed.operations.gate {shlex.join(words)}",
        "rows": [1],
        "size": "a b",
    }


@pytest.mark.parametrize(("error", "code"), [(InputError("wrong"), 2), (RunError("failed"), 1)])
def test_an_error_is_one_line(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(_: argparse.Namespace) -> dict:
        raise error

    monkeypatch.setattr(sys, "argv", ["program"])

    with pytest.raises(SystemExit) as ended:
        run_program("operations.gate", program_parser(None), measure, str)
    assert ended.value.code == code
    assert capsys.readouterr().err == f"error: {error}\n"
