"""The page of software components: all of it from the lock files, with an answer in every column."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from attunet.errors import InputError
from attunet.launch.components import pins
from attunet.launch.components_page import CUDA_LOCK, LOCKS, page

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "components.md"
ROW = re.compile(r"^\|.*\|$", re.MULTILINE)


def _rows(text: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in ROW.findall(text)]
    return [row for row in rows if row[0] != "component" and set(row[0]) != {"-"}]


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the page lists what Python 3.11 gets")
def test_the_page_is_the_one_of_the_lock_files() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == page(ROOT), "write it again: python -m attunet.launch.components_page > docs/components.md"


def test_every_component_has_the_version_of_its_lock_and_every_column_an_answer() -> None:
    locked = {name: version for lock in (*LOCKS, CUDA_LOCK) for name, version in pins(ROOT / lock).items()}
    rows = _rows(PAGE.read_text(encoding="utf-8"))
    assert len(rows) > 60
    for row in rows:
        assert all(row), row
        assert locked.get(row[0], row[1]) == row[1], row
    assert pins(ROOT / CUDA_LOCK).keys() <= {row[0] for row in rows}


def test_the_version_is_not_that_of_the_installation_and_a_lock_without_a_component_is_refused(tmp_path: Path) -> None:
    for lock in (*LOCKS, CUDA_LOCK):
        shutil.copy(ROOT / lock, tmp_path)
    path = tmp_path / "lock.txt"
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub("^numpy==[0-9.]+", "numpy==1.0", text, flags=re.MULTILINE), encoding="utf-8")
    assert {row[1] for row in _rows(page(tmp_path)) if row[0] == "numpy"} == {"1.0"}
    path.write_text(re.sub("^numpy==", "numpie==", text, flags=re.MULTILINE), encoding="utf-8")
    with pytest.raises(InputError, match=r"^numpy: is in none of lock\.txt"):
        page(tmp_path)
