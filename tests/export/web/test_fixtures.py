"""The values that the page's own tests compare with are those of the Python side today."""

import importlib.util
import json
from pathlib import Path


def test_the_committed_values_are_those_that_python_gives() -> None:
    spec = importlib.util.spec_from_file_location("write_fixtures", Path(__file__).with_name("write_fixtures.py"))
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    committed, today = json.loads(script.OUT.read_text(encoding="utf-8")), script.fixtures()
    assert set(committed) == set(today)
    for name, rows in today.items():
        assert committed[name] == rows, f"{name}: run {script.__file__}"
