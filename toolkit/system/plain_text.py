"""Names that a stranger's file brought, made harmless for terminals, tables and the names of files."""

import re
from collections.abc import Iterable, Sequence

# Of Markdown. An underscore within a word is none; a bare address is a link by its `://`, or the point behind `www`.
MARKS = re.compile(r"[\\|`\[\]*~$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE)
MAX_NAME = 200  # characters of a file's name; file systems allow 255, with what stands before and behind it

MAX_NAMED = 10


def printable(text: str) -> str:
    """The text with `?` instead of control characters but line breaks and tabs: no file controls the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def printable_line(text: str) -> str:
    """The text as one line: a name must not make a line of its own, nor control the terminal."""
    return printable(text).replace("\n", "?").replace("\t", " ")


def table_cell(text: str) -> str:
    """The text as one cell of a Markdown table: no column, HTML, link, emphasis or formula begins; numbers keep their
    sign.
    """
    plain = " ".join(printable(text).split())
    plain = MARKS.sub(r"\\\g<0>", plain).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    is_formula = plain[:1] in ("=", "+", "-", "@") and not re.match(r"[+-]?[\d.]", plain)
    return f"'{plain}" if is_formula and plain not in ("-", "--") else plain


def spreadsheet_cell(text: str) -> str:
    """The text as one cell of a CSV file, on one line, which no spreadsheet takes for a formula."""
    plain = " ".join(printable(text).split())
    return f"'{plain}" if plain[:1] in ("=", "+", "-", "@") else plain


def named(names: Sequence[str]) -> str:
    """The first names of a sentence's subject, and how many more there are."""
    return ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already, see `table_cell`."""
    first, *others = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([first, "|---" * len(head) + "|", *others])


def file_names(labels: Iterable[str]) -> dict[str, str]:
    """Make a file name of each label; those of two labels differ, also where a file system ignores capitals."""
    names: dict[str, str] = {}
    for label in dict.fromkeys(labels):
        name = plain = re.sub(r"[^A-Za-z0-9.=@+-]+", "_", label).strip("_.")[:MAX_NAME] or "model"
        taken = {other.lower() for other in names.values()}
        while name.lower() in taken:
            name = f"{plain}_{len(names) + 1}" if name == plain else f"{name}_"
        names[label] = name
    return names
