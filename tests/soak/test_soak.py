"""A rehearsal of `make soak`: every part in miniature, without a find; and a promise that is broken is told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
def test_a_rehearsal_has_every_part_and_no_find(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, HERE / "soak.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "SOAK_MINUTES": "0.2", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    rows = [line.split() for line in done.stdout.splitlines()]
    assert {row[0] for row in rows[1:-1]} == {"kills", "full", "read-only", "two", "leaks", "fuzz", "faults", "tests"}


def test_a_broken_promise_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)
    from promises import complaint

    assert complaint(0, "done", (0,)) == ""
    assert complaint(2, "error: x: no such file", (0, 1, 2)) == ""
    assert "exit code 1" in complaint(1, "error: x", (0, 2))
    assert "not one line" in complaint(1, "Traceback (most recent call last):\nValueError: x", (0, 1))
    assert "exit code -9" in complaint(-9, "", (0, 1, 2))
