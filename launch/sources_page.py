"""The tables of docs/sources.md: `python -m attunet.launch.sources_page docs/sources.md` writes them into the page."""

import re
import sys
from pathlib import Path

from attunet.decisions import rules_table
from attunet.io.readers import FORMATS
from attunet.io.writers import WRITERS
from attunet.sources.find_cases import FINDERS
from attunet.system.plain_text import markdown_table

SECTION = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def layouts_table() -> str:
    """One row for each layout, in the order in which they are tried."""
    rows = [(f"`{name}`", f"`{example}`") for name, (_, example) in FINDERS.items()]
    return markdown_table(("layout", "looks like"), rows) + "\n"


def formats_table() -> str:
    """One row for each format: the endings that are read, and those that are written."""
    rows = []
    for format in FORMATS:
        written = [suffix for suffix in WRITERS if suffix in format.suffixes]
        if not written and not format.single:
            written = [".dcm (DICOM SEG)"]
        read, write = (", ".join(f"`{suffix}`" for suffix in suffixes) for suffixes in (format.suffixes, written))
        rows.append((format.name, read, write))
    return markdown_table(("format", "read", "label maps"), rows) + "\n"


TABLES = {"layouts": layouts_table, "formats": formats_table, "decisions": rules_table}


def with_tables(page: str) -> str:
    """The page with every generated section written again."""
    return SECTION.sub(lambda match: f"{match[1]}\n{TABLES[match[2]]()}\n{match[3]}", page)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
