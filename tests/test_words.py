"""Plain words: texts open with their subject, and a word means one thing."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("toolkit", "export", "benchmarks", "launch")
QUESTIONS = {"what", "which", "how", "whether", "where", "who", "why"}
TEXTS = {"help", "short_help", "summary", "description", "epilog"}  # of click, argparse and FastAPI
# Plainer: logged or printed, requested or chosen, decided or resolved, other processes, networks.
PRIVATE = re.compile(r"\b(told|asked|settle[ds]?|peers?|contenders?)\b", re.IGNORECASE)
NAMES = re.compile(r"(^|_)(found|told|asked|settled?|ways?|peers?|contenders?)(_|$)|^(least|most)_", re.IGNORECASE)


@pytest.fixture(scope="module")
def trees() -> list[tuple[str, ast.Module]]:
    """Every module of the four folders, by its path."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    own = [path for path in paths if "node_modules" not in path.parts]
    return [(str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))) for path in own]


def _opens_with_a_question(text: str) -> bool:
    return text.partition(" ")[0].lower() in QUESTIONS and not text.rstrip().endswith("?")


def test_docstrings_open_with_what_they_document(trees) -> None:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    wrong = [
        f"{name}: {text[:60]}"
        for name, tree in trees
        for node in ast.walk(tree)
        if isinstance(node, documented) and _opens_with_a_question(text := ast.get_docstring(node) or "")
    ]
    assert not wrong


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        node = node.values[0] if node.values else node
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_help_and_texts_of_settings_open_with_what_they_document(trees) -> None:
    """Every text of a command, an option, a setting of the configuration or a route of the server."""
    wrong, texts = [], 0
    for name, tree in trees:
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            named = [keyword.value for keyword in node.keywords if keyword.arg in TEXTS]
            is_setting = isinstance(node.func, ast.Name) and node.func.id == "setting"
            for text in map(_text, [*named, *(node.args[1:2] if is_setting else ())]):
                texts += bool(text)
                wrong += [f"{name}:{node.lineno}: {text[:60]}"] if _opens_with_a_question(text) else []
    assert texts > 200
    assert not wrong


def test_no_private_words() -> None:
    """In texts, comments and names of the four folders, and in the pages."""
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if "node_modules" not in path.parts]
    wrong = []
    for path in [*paths, *(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            wrong += [f"{path.relative_to(ROOT)}:{number}: {word}" for word in PRIVATE.findall(line)]
    assert not wrong


def test_names_use_the_words_of_the_field(trees) -> None:
    wrong = []
    for name, tree in trees:
        for node in ast.walk(tree):
            names = [node.id] if isinstance(node, ast.Name) else []
            names += [node.name] if isinstance(node, ast.ClassDef | ast.FunctionDef) else []
            wrong += [f"{name}: {one}" for one in names if NAMES.search(one)]
    assert not sorted(set(wrong))
