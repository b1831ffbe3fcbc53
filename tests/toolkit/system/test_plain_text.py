"""Names of strangers in terminals and tables."""

import logging

import pytest

from attunet.system.plain_text import printable, printable_line, table_cell

ESCAPE = "liver\x1b]0;owned\x07\x1b[31m"


def test_no_control_character_reaches_a_terminal(log_lines: list[str]) -> None:
    logging.getLogger("attunet.somewhere").warning(ESCAPE + "\r\u202e")
    assert log_lines == ["warning: liver?]0;owned??[31m??"]
    assert printable("a\nb\tc") == "a\nb\tc"


def test_a_name_makes_no_line_of_its_own(log_lines: list[str]) -> None:
    logging.getLogger("attunet.somewhere").info("1/2 scan\nerror: forged.nii.gz")
    assert log_lines == ["1/2 scan?error: forged.nii.gz"]
    assert printable_line("liver\n# forged\t") == "liver?# forged "


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("a|b", r"a\|b"),
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("@SUM(1)", "'@SUM(1)"),
        ("+0.004", "+0.004"),
        ("-0.5", "-0.5"),
        ("-", "-"),
        ("[x](javascript:1)", r"\[x\](javascript:1)"),
        ("two\nlines", "two lines"),
        ("_left_ **kidney** ~~left_kidney~~ $x^2$", r"\_left\_ \*\*kidney\*\* \~\~left_kidney\~\~ \$x^2\$"),
        ("www.example.org http://example.org", r"www\.example.org http\://example.org"),
    ],
)
def test_a_cell_holds_text_and_nothing_else(text: str, cell: str) -> None:
    assert table_cell(text) == cell
