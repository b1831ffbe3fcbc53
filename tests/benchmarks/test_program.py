"""An error of a program that `python -m` starts is one line, with the exit code of a command."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from attunet.benchmarks.accuracy import better, nnunet, untuned
from attunet.benchmarks.crossvalidation import confidence, partial_labels
from attunet.errors import InputError, RunError


@pytest.mark.parametrize(
    ("program", "work", "options"),
    [
        (better, "open_store", ["STORE", "OUT"]),
        (nnunet, "open_store", ["STORE", "OUT"]),
        (untuned, "compare", ["OUT"]),
        (confidence, "measure", ["OUT"]),
        (partial_labels, "compare", ["OUT"]),
    ],
    ids=lambda value: getattr(value, "__name__", "").rpartition(".")[2],
)
@pytest.mark.parametrize(("error", "code"), [(InputError("a wrong value"), 2), (RunError("it failed"), 1)])
def test_an_error_is_one_line(
    program,
    work: str,
    options: list[str],
    error: Exception,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(program, work, fail)
    monkeypatch.setattr(sys, "argv", ["program", *(str(tmp_path / word) for word in options)])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == code
    assert capsys.readouterr().err == f"error: {error}\n"
