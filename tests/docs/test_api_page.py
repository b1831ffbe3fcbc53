"""Docstrings of the public API: every argument, the result, and an example of a long call."""

import ast
import doctest
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


def _public_functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """Functions and methods that have a docstring for callers: no kernels, overloads or commands."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in [*tree.body, *(method for one in classes for method in one.body)]:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            decorators = " ".join(map(ast.unparse, node.decorator_list))
            if not any(kind in decorators for kind in ("triton.jit", "overload", "click.command")):
                yield node


def test_every_long_call_of_the_package_has_an_example() -> None:
    wrong = []
    for folder in ("toolkit", "launch", "export", "benchmarks"):
        for path in (PAGE.parents[1] / folder).rglob("*.py"):
            if "node_modules" in path.parts:
                continue
            for function in _public_functions(ast.parse(path.read_text(encoding="utf-8"))):
                given = function.args
                names = [one.arg for one in [*given.posonlyargs, *given.args, *given.kwonlyargs]]
                is_long = len([name for name in names if name not in ("self", "cls")]) > MAX_WITHOUT_EXAMPLE
                if is_long and not _section(ast.get_docstring(function) or "", "Example"):
                    wrong.append(f"{path.name}:{function.lineno}: {function.name}")
    assert not wrong


def test_the_examples_that_need_no_files_give_what_they_say() -> None:
    pytest.importorskip("torch")
    ran = 0
    for name in [*NAMES, "attunet.metrics.overlap.chaos_score"]:
        module, _, last = name.rpartition(".")
        place = importlib.import_module(module)
        names = {**vars(place), "np": importlib.import_module("numpy"), "torch": importlib.import_module("torch")}
        for test in doctest.DocTestFinder(recurse=False).find(getattr(place, last), last, module=place, globs=names):
            result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
            assert not result.failed, name
            ran += result.attempted
    assert ran > 8
