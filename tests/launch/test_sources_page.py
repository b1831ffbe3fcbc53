from pathlib import Path

from attunet.decisions import RULES
from attunet.launch.sources_page import with_tables
from attunet.sources.find_cases import FINDERS

PAGE = Path(__file__).parents[2] / "docs/sources.md"


def test_the_tables_in_the_docs_are_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "write them again: python -m attunet.launch.sources_page docs/sources.md"
    assert all(f"| `{rule}` |" in page for rule in RULES)
    assert all(f"| `{layout}` |" in page for layout in FINDERS)


def test_every_rule_can_be_chosen_otherwise() -> None:
    for name, rule in RULES.items():
        assert bool(rule.option) != (len(rule.choices) >= 2), name
