"""The committed values, with which the page's own tests compare, are the results of the Python side."""

import json
from pathlib import Path

import pytest


def test_the_committed_values_are_those_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    import write_fixtures

    committed, now = json.loads(write_fixtures.OUT.read_text(encoding="utf-8")), write_fixtures.fixtures()
    assert set(committed) == set(now)
    for name, rows in now.items():
        assert committed[name] == rows, f"{name}: run {write_fixtures.__file__}"
