"""The GPU figures on the pages are those of benchmarks/results."""

import pytest

from attunet.benchmarks.speed.gpu.tables import MARKED, PAGES, ROOT, TABLES, with_tables


@pytest.mark.parametrize("name", PAGES)
def test_pages_agree_with_the_results(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text == with_tables(text), "write them again: python -m attunet.benchmarks.speed.gpu.tables"


def test_every_table_is_on_a_page() -> None:
    marked = {match[1] for name in PAGES for match in MARKED.finditer((ROOT / name).read_text(encoding="utf-8"))}
    assert marked == set(TABLES)


def test_a_changed_figure_is_noticed() -> None:
    text = (ROOT / "docs/gate.md").read_text(encoding="utf-8")
    assert with_tables(text.replace("| 90 % |", "| 95 % |")) == text
