"""imagesTr/ and labelsTr/ with a dataset.json: the Medical Segmentation Decathlon and nnU-Net's raw data."""

import json
import re
from pathlib import Path
from typing import Any

from attunet.classes import Classes
from attunet.errors import InputError
from attunet.sources.case_files import Source
from attunet.sources.layouts.two_folders import matched

MAX_DATASET_JSON = 16 * 2**20


def find_decathlon(root: Path, files: list[Path]) -> Source | None:
    """The cases of imagesTr/ and labelsTr/, with classes from dataset.json."""
    images, labels, description = root / "imagesTr", root / "labelsTr", root / "dataset.json"
    if not (images.is_dir() and labels.is_dir()):
        return None
    cases = matched(images, labels, {folder: [path for path in files if path.is_relative_to(folder)] for folder in (images, labels)})
    if not cases:
        return None
    if description not in files:
        return Source(root, "decathlon", "it has imagesTr/ and labelsTr/, without dataset.json", (), cases, frames=True)
    classes, ignored = _described_classes(description)
    return Source(root, "decathlon", "it has imagesTr/, labelsTr/ and dataset.json", (classes,), cases, ignored=ignored, frames=True)


def _described_classes(path: Path) -> tuple[Classes, int | None]:
    """Names and values of `labels` in dataset.json, either way round or a list of names, and the value of `ignore`."""
    if path.stat().st_size > MAX_DATASET_JSON:
        raise InputError(f"{path}: must be at most {MAX_DATASET_JSON:,} bytes, got {path.stat().st_size:,}")
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None
    labels = data.get("labels") if isinstance(data, dict) else None
    if isinstance(labels, list) and all(isinstance(name, str) for name in labels):
        labels = {str(value): name for value, name in enumerate(labels)}
    if not isinstance(labels, dict) or not labels:
        raise InputError(f'{path}: "labels" must give the name and value of every class')
    values = _values(path, labels)
    ignored = values.pop("ignore", None)
    background = next((name for name, value in values.items() if value == 0), None)
    if background is None:
        raise InputError(f'{path}: "labels" must have the value 0, which is the background')
    ordered = sorted(values.items(), key=lambda item: (item[1] != 0, item[1]))
    return Classes(tuple(n for n, _ in ordered), tuple(v for _, v in ordered)), ignored


def _values(path: Path, labels: dict[str, Any]) -> dict[str, int]:
    values: dict[str, int] = {}
    for left, right in labels.items():
        name, value = (right, left) if isinstance(right, str) and not _is_whole(right) else (left, right)
        if not _is_whole(value):
            raise InputError(
                f'{path}: "labels" must give one whole number per class (regions are not supported), got {value!r} for {name!r}'
            )
        if str(name) in values:
            raise InputError(f'{path}: "labels" must have every name once, {name!r} has {values[str(name)]} and {value}')
        values[str(name)] = int(value)
    return values


def _is_whole(value: object) -> bool:
    return type(value) is int or (isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value, re.ASCII) is not None)
