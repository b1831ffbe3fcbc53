"""Files that pages and docstrings name are there."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("toolkit", "export", "launch", "benchmarks", "tests", "docs", ".ci")
NAMED = re.compile(rf"(?<![\w/.<-])((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./*-]+)")
MODULE = re.compile(r"`([\w/-]+\.py)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
BUILT = ("export/web/page", "export/web/node_modules")  # by npm
NOT_THERE = ("NAME", "utils.py")  # a newcomer's file; a name that no file may have


def _pages() -> list[Path]:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "Makefile"]
    return [page for page in pages if page.name != "CHANGELOG.md"]  # that names files of its time


def _modules() -> list[Path]:
    folders = [ROOT / folder for folder in FOLDERS]
    return [path for folder in folders for path in folder.rglob("*.py") if "node_modules" not in path.parts]


def test_named_paths_exist() -> None:
    wrong = []
    for path in [*_pages(), *_modules()]:
        for named in NAMED.findall(path.read_text(encoding="utf-8")):
            name = named.rstrip(".,-/")
            # The page on security and some programs write a path from tests/ on.
            there = any(True for folder in (ROOT, ROOT / "tests") for _ in folder.glob(name))
            if not there and not name.startswith(BUILT) and "NAME" not in name:
                wrong.append(f"{path.relative_to(ROOT)}: {named}")
    assert not wrong


def test_modules_named_without_their_folder_exist() -> None:
    names = {path.name for path in _modules()} | {"setup.py"}
    for page in _pages():
        for named in MODULE.findall(page.read_text(encoding="utf-8")):
            assert Path(named).name in names or named.endswith(NOT_THERE) or "NAME" in named, (page.name, named)


def test_links_lead_to_files() -> None:
    for page in _pages():
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), (page.name, link)


def test_the_repository_holds_the_rooms_alone() -> None:
    """No scans that a trial has left beside them."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("no git repository here")
    assert {name.partition("/")[0] for name in listed.stdout.split() if "/" in name} == set(FOLDERS)
