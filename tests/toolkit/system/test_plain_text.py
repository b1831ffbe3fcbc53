"""Names of strangers in terminals, tables and names of files."""

import logging

import pytest

from attunet.system.plain_text import file_names, printable, printable_line, table_cell

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


def test_names_that_would_be_one_file_are_several() -> None:
    labels = ["a b", "a?b", "A_b", "a_b_2", "a b", "_x", "-x", "?", "", "y" * 250, "y" * 251]
    names = file_names(labels)
    assert list(names) == list(dict.fromkeys(labels))
    assert len({name.lower() for name in names.values()}) == len(names)
    assert (names["a b"], names["_x"], names["?"]) == ("a_b", "x", "model")
    assert max(map(len, names.values())) < 220  # with what stands before and behind it a file's name
