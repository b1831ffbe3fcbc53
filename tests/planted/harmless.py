"""A class name that a stranger chose goes through every command, and controls nothing that it comes into."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import nibabel as nib

NAME = "=evil\x1b[31m pipe|pipe `code` [x](y) <img src=x onerror=alert(1)>\nline"
BINARY = (".npy", ".npz", ".png", ".onnx", ".gz", ".safetensors", ".bin")
EVENTS = "events.out.tfevents"


def check_files(folder: Path) -> None:
    """Every text file below a folder is harmless, without those of `attunet web`, which are programs."""
    checked = set()
    for path in (path for path in folder.rglob("*") if path.is_file()):
        is_page = path.relative_to(folder).parts[0].startswith("page")
        if path.suffix not in BINARY and EVENTS not in path.name and not is_page:
            checked.add(path.name)
            harmless(path.suffix, path.read_text(encoding="utf-8"))
    assert {"results.md", "benchmark.md", "card.md", "report.html", "confidence.csv", "config.pbtxt"} <= checked


def as_decathlon(source: Path, folder: Path) -> None:
    """The cases in folders of images and labels, with the names of their classes in dataset.json."""
    training = []
    for number, path in enumerate(sorted(source.glob("*-src.nii.gz"))):
        entry = {"image": f"./imagesTr/c{number}.nii.gz", "label": f"./labelsTr/c{number}.nii.gz"}
        files = {"image": path, "label": path.with_name(path.name.replace("src", "mask"))}
        for kind, scan in files.items():
            (folder / entry[kind]).parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.load(scan), folder / entry[kind])
        training.append(entry)
    labels = {"0": "background", "1": NAME, "2": f"2{NAME}", "3": "@SUM(1)", "4": "spleen"}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "training": training}))


def harmless(suffix: str, text: str) -> None:
    """A text in a format that people open: no control character, no cell, line, tag or formula of the name's own."""
    assert not controls(text), suffix
    if suffix == ".md":
        no_markup(text)
    elif suffix == ".html":
        Tags().feed(text)
    elif suffix == ".csv":
        header, *rows = csv.reader(io.StringIO(text))
        assert rows
        assert all(len(row) == len(header) for row in rows)
        assert not [cell for row in (header, *rows) for cell in row if cell[:1] in ("=", "@")]


def controls(text: str) -> list[str]:
    return [c for c in text if not c.isprintable() and c not in "\n\t\xa0\u200b"]


def no_markup(text: str) -> None:
    """Markdown without tags, links or code of the name, and with as many cells in each row as in the one before.

    Metadata at the head, and blocks of code, are text of their own.
    """
    text = re.sub(r"^```\w*$.*?^```$", "", text.rpartition("\n---\n")[2], flags=re.MULTILINE | re.DOTALL)
    assert "<img" not in text
    assert not re.search(r"(?<!\\)\[x(?<!\\)\]\(y", text)
    assert not re.search(r"(?<!\\)`code", text)
    assert not [line for line in text.splitlines() if line.startswith("line")]
    lines = text.splitlines()
    for line, following in pairwise(lines):
        if line.startswith("|") and following.startswith("|"):
            assert cells(line) == cells(following), (line, following)


def cells(row: str) -> int:
    return len(re.findall(r"(?<!\\)\|", row))


class Tags(HTMLParser):
    """Fails at a tag of the name."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "onerror" not in dict(attrs), (tag, attrs)
