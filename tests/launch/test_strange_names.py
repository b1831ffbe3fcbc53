"""A class name that a stranger chose goes through every command, and controls nothing that it comes into."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import pytest
from small_trainings import set_options

NAME = "=evil\x1b[31m pipe|pipe `code` [x](y) <img src=x onerror=alert(1)>\nline"
BINARY = (".npy", ".npz", ".png", ".onnx", ".gz", ".safetensors", ".bin")
EVENTS = "events.out.tfevents"


@pytest.mark.slow
@pytest.mark.usefixtures("no_measuring")
def test_a_name_of_a_stranger_is_harmless_in_every_command(source: Path, tmp_path: Path, succeed) -> None:
    pytest.importorskip("torch")
    scans, out = tmp_path / "scans", tmp_path / "out"
    as_decathlon(source, scans)
    store, run, model, cv = out / "store", out / "run", out / "model.onnx", out / "cv"
    quick, shortly = set_options("optim.epochs=1"), ["--latency-seconds", 0.02]
    commands: list[list[object]] = [
        ["prepare", scans, store, "--folds", 2, "--set=data.size=32"],
        ["inspect", scans, "--picture", out / "scans.png"],
        ["inspect", store, "--picture", out / "store.png", "--augmented", out / "augmented.png"],
        ["train", store, run, "--fold", 0, *quick],
        ["inspect", run],
        ["inspect", run, "--lineage"],
        ["crossvalidate", store, cv, "--model", "unet", "--model", "attention_unet", *quick],
        ["export", run, model, "--license", NAME],
        ["export", run, out / "confident.onnx", "--confidence", cv],
        ["export", run, out / "repository", "--triton", "organs"],
        ["inspect", model],
        ["card", model],
        ["card", model, "-o", out / "card.md"],
        ["verify", model],
        ["evaluate", store, run, model, "--out", out / "results", *shortly],
        ["report", out / "results"],
        ["report", cv],
        ["benchmark", run, store, "--out", out / "benchmark", "--provider", "cpu", "--precision", "fp32", *shortly],
        ["predict", model, scans / "imagesTr" / "c1.nii.gz", out / "one.nii.gz"],
        ["predict", out / "confident.onnx", scans / "imagesTr", out / "labels", "--audit", out / "log.jsonl"],
    ]
    for command in commands:
        done = succeed(*command)
        assert not controls(done.out + done.err), command
        if command[0] == "card":
            no_markup(done.out)
    checked = set()
    for path in (path for path in out.rglob("*") if path.is_file()):
        if path.suffix not in BINARY and EVENTS not in path.name:
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
