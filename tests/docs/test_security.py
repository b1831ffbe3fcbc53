"""The page on security names tests that are there."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "security.md"


def test_every_promise_has_its_test() -> None:
    rows = [
        row.strip("|").split("|") for row in re.findall(r"^\|.*\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    promises = [row for row in rows if row[-1].strip() not in ("test", "---") and set(row[-1]) != {"-"}]
    assert len(promises) > 30
    for row in promises:
        named = [name for name in re.findall("`([^`]+)`", row[-1]) if not name.startswith("make ")]
        assert named, row
        folder = TESTS
        for name in named:  # a name without a folder lies beside the one before it
            place = TESTS / name if (TESTS / name).exists() else folder / name
            assert place.exists(), (name, row)
            folder = place.parent
