"""imagesTr/ and labelsTr/ with a dataset.json: the Medical Segmentation Decathlon, nnU-Net's raw data, AMOS."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from attunet.classes import Classes
from attunet.errors import InputError
from attunet.fields import MAX_TEXT, Fields
from attunet.io.readers import stem_of
from attunet.sources.case_files import CaseFiles, Source
from attunet.sources.labelled import with_labelled
from attunet.sources.layouts.two_folders import matched

MAX_DATASET_JSON = 16 * 2**20
# Endings of the folders, and their lists in dataset.json
PARTS = {"Tr": "training", "Va": "validation", "Val": "validation"}


def find_decathlon(root: Path, files: list[Path]) -> Source | None:
    """The cases of imagesTr/ and labelsTr/, and of imagesVa/ or imagesVal/,
    with classes and lists from dataset.json.
    """
    if not ((root / "imagesTr").is_dir() and (root / "labelsTr").is_dir()):
        return None
    below = {root / f"{kind}{part}": list[Path]() for part in PARTS for kind in ("images", "labels")}
    for path in files:
        for folder in below:
            if path.is_relative_to(folder):
                below[folder].append(path)
    cases = {
        part: matched(root / f"images{part}", root / f"labels{part}", below)
        for part in PARTS
        if (root / f"labels{part}").is_dir()
    }
    if not cases["Tr"]:
        return None
    description = root / "dataset.json"
    if description not in files:
        everything = tuple(case for part in cases.values() for case in part)
        return Source(root, "decathlon", "it has imagesTr/ and labelsTr/, without dataset.json", (), everything)
    data = _read_json(description)
    classes, ignored = _described_classes(description, data)
    listed, notes = [], []
    for part, part_cases in cases.items():
        kept, left, absent = _listed(part_cases, data.get(PARTS[part]))
        if absent:
            shown = ", ".join(absent[:5])
            notes.append(f"{len(absent)} cases of the {PARTS[part]} list of dataset.json have no files here: {shown}")
        listed += kept
        if left:
            names = ", ".join(left[:5])
            notes.append(
                f"{len(left)} of {len(part_cases)} cases are not in the {PARTS[part]} list of dataset.json and are "
                f"left out: {names}"
            )
    reason = "it has imagesTr/, labelsTr/ and dataset.json"
    channels = _described_channels(data)
    source = Source(
        root, "decathlon", reason, (classes,), tuple(listed), ignored=ignored, notes=tuple(notes), channels=channels
    )
    if "labelled" not in data:
        return source
    drawn = Fields(data, str(description)).inner("labelled")
    return with_labelled(source, {case: drawn.text_list(case) for case in drawn.data}, description)


def _listed(cases: tuple[CaseFiles, ...], rows: object) -> tuple[list[CaseFiles], list[str], list[str]]:
    """The cases that a list of dataset.json names, the names of the others, and the names without files;
    an empty list names all.
    """
    if not isinstance(rows, list) or not rows:
        return list(cases), [], []
    paths = [row.get("label") or row.get("image") if isinstance(row, dict) else row for row in rows]
    names = {stem_of(Path(path.replace("\\", "/"))) for path in paths if isinstance(path, str)}
    kept = [
        case
        for case in cases
        if case.case in names or any(stem_of(path) in names for path in (*case.labels, *case.images))
    ]
    there = {name for case in kept for name in (case.case, *(stem_of(path) for path in (*case.labels, *case.images)))}
    return kept, sorted({case.case for case in cases} - {case.case for case in kept}), sorted(names - there)


def _read_json(path: Path) -> Mapping[str, object]:
    if path.stat().st_size > MAX_DATASET_JSON:
        raise InputError(f"{path}: must be at most {MAX_DATASET_JSON:,} bytes, got {path.stat().st_size:,}")
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None
    return data if isinstance(data, dict) else {}


def _described_classes(path: Path, data: Mapping[str, object]) -> tuple[Classes, int | None]:
    """Names and values of `labels` in dataset.json, either way round or a list of names, and the value of `ignore`."""
    labels = data.get("labels")
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


def _described_channels(data: Mapping[str, object]) -> tuple[str, ...]:
    """The names of `channel_names` or `modality` in dataset.json, a list or {"0": name, ...};
    none where they are something else.
    """
    named = data.get("channel_names", data.get("modality"))
    if isinstance(named, list):
        named = {str(number): name for number, name in enumerate(named)}
    if not isinstance(named, dict):
        return ()
    names = [named.get(str(number)) for number in range(len(named))]
    texts = [name for name in names if isinstance(name, str) and 0 < len(name) <= MAX_TEXT]
    return tuple(texts) if len(texts) == len(names) else ()


def _values(path: Path, labels: Mapping[str, object]) -> dict[str, int]:
    values: dict[str, int] = {}
    for left, right in labels.items():
        name, value = (right, left) if isinstance(right, str) and not _is_whole(right) else (left, right)
        if not _is_whole(value):
            raise InputError(
                f'{path}: "labels" must give one whole number per class (regions are not supported), got {value!r} for '
                f"{name!r}"
            )
        if str(name) in values:
            raise InputError(
                f'{path}: "labels" must have every name once, {name!r} has {values[str(name)]} and {value}'
            )
        values[str(name)] = int(str(value))
    return values


def _is_whole(value: object) -> bool:
    return type(value) is int or (isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value, re.ASCII) is not None)
