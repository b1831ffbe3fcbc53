"""The frame of the programs that `python -m` starts: an error is one line, a folder is continued by the same call."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from attunet.benchmarks.accuracy import better, nnunet, untuned
from attunet.benchmarks.crossvalidation import confidence, partial_labels
from attunet.benchmarks.program import require_same_call
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


def test_a_folder_is_continued_by_the_same_call_alone(tmp_path: Path) -> None:
    note = tmp_path / "new" / "call.json"
    for _ in range(2):
        require_same_call(note, {"patients": 8, "settings": ["optim.epochs=1"]})
    with pytest.raises(InputError, match="new: was made with other patients; name another folder or remove it"):
        require_same_call(note, {"patients": 9, "settings": ["optim.epochs=1"]})
