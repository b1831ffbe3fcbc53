"""The GPU figures on the pages are those of benchmarks/results."""

import pytest

from attunet.benchmarks.speed.gpu import tables
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


def test_a_form_that_failed_at_a_batch_size_has_a_dash_there(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"options": {}, "p50_ms": 1.5, "slices_per_s": 10.0}
    rows = [row | {"name": name, "shape": [batch, 1, 8, 8]} for name, batch in (("a", 1), ("a", 32), ("b", 32))]
    monkeypatch.setattr(tables, "_read", lambda _: {"rows": rows})
    assert tables.inference_table().splitlines()[2:] == ["| a |  | 1.50 | 10 | 10 |", "| b |  | – | – | 10 |"]
