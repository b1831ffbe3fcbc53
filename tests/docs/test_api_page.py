"""Docstrings of the public API: every argument, the result, and an example of a long call."""

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import attunet
from attunet.config.section import Section

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
NAMES = re.findall(r"^::: (\S+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
MAX_WITHOUT_EXAMPLE = 4  # parameters


def _documented() -> Iterator[tuple[str, Callable[..., object], str]]:
    """Name, function and docstring of what the page shows; a class documents the arguments of its `__init__`."""
    for name in NAMES:
        module, _, last = name.rpartition(".")
        shown = getattr(importlib.import_module(module), last)
        if not inspect.isclass(shown):
            yield last, shown, inspect.getdoc(shown) or ""
            continue
        if "__init__" in vars(shown) and not issubclass(
            shown, Section
        ):  # a section's fields are on a page of their own
            yield last, shown.__init__, inspect.getdoc(shown) or ""
        for method, function in vars(shown).items():
            if isinstance(function, classmethod | staticmethod):
                function = function.__func__
            if inspect.isfunction(function) and not method.startswith("_") and function.__doc__:
                yield f"{last}.{method}", function, inspect.getdoc(function) or ""


def _parameters(function: Callable[..., object]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def _section(docstring: str, title: str) -> str:
    """The indented lines below a title."""
    match = re.search(rf"^{title}:\n((?:[ \t]+.*\n?|\n)+)", docstring, flags=re.MULTILINE)
    return match[1] if match else ""


def test_the_page_shows_every_public_name() -> None:
    pytest.importorskip("torch")
    shown = {name.rpartition(".")[2] for name in NAMES}
    assert {name for name in attunet.__all__ if name != "__version__"} - {"export"} <= shown
    assert "export_run" in shown  # called attunet.export


def test_every_function_documents_its_arguments_its_result_and_a_long_call() -> None:
    pytest.importorskip("torch")
    wrong = []
    for name, function, docstring in _documented():
        arguments = _section(docstring, "Args")
        missing = [one for one in _parameters(function) if not re.search(rf"\b{one}\b.*:", arguments)]
        wrong += [f"{name}: Args lacks {', '.join(missing)}"] if missing else []
        result = inspect.signature(function).return_annotation
        if result not in (None, "None", inspect.Signature.empty) and not _section(docstring, "Returns"):
            wrong.append(f"{name}: has no Returns")
        if len(_parameters(function)) > MAX_WITHOUT_EXAMPLE and not _section(docstring, "Example"):
            wrong.append(f"{name}: has no Example")
    assert len(NAMES) > 15
    assert not wrong, "\n".join(wrong)
