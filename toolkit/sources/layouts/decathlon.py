"""imagesTr/ and labelsTr/ with a dataset.json: the Medical Segmentation Decathlon, nnU-Net's raw data, AMOS."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from attunet.channels import are_distinct
from attunet.classes import Classes
from attunet.errors import InputError
from attunet.fields import MAX_TEXT, Fields, read_json
from attunet.io.readers import stem_of
from attunet.sources.case_files import CaseFiles, Source, SourceOptions
from attunet.sources.labels.labelled import with_labelled
from attunet.sources.layouts.matching import by_stem
from attunet.sources.layouts.two_folders import matched

DESCRIPTION = "dataset.json"
MAX_DATASET_JSON = 16 * 2**20
# Endings of the folders, and their lists in dataset.json
PARTS = {"Tr": "training", "Va": "validation", "Val": "validation"}
FOLDERS = [f"{kind}{part}" for part in PARTS for kind in ("images", "labels")]

Key = Callable[[str], str]  # of a path of dataset.json or of a file, by which the two are compared


def find_decathlon(root: Path, files: list[Path], _: SourceOptions) -> Source | None:
    """The cases of imagesTr/ and labelsTr/ (and Va or Val), with classes and lists from dataset.json."""
    if not ((root / "imagesTr").is_dir() and (root / "labelsTr").is_dir()):
        return None
    below = {root / one: [path for path in files if path.is_relative_to(root / one)] for one in FOLDERS}
    cases = {
        part: matched(images, labels, by_stem(images, below[images]), by_stem(labels, below[labels]))
        for part in PARTS
        for images, labels in [(root / f"images{part}", root / f"labels{part}")]
        if labels.is_dir()
    }
    if not cases["Tr"]:
        return None
    every = [case for part in cases.values() for case in part]
    description = root / DESCRIPTION
    if description not in files:
        return Source(root, "decathlon", "it has imagesTr/ and labelsTr/, without dataset.json", (), tuple(every))
    data = _read_json(description)
    classes, ignored = _described_classes(description, data)
    listed: list[CaseFiles] = []
    notes: list[str] = []
    is_nested = any("/" in _inside(str(path)) for case in every for path in (*case.images, *case.labels))
    key = _inside if is_nested else _stem
    for part, part_cases in cases.items():
        _check_pairs(description, part_cases, data.get(PARTS[part]), key)
        listed += _listed(part_cases, PARTS[part], data, notes, key)
    left_out = set(every) - set(listed)
    source = Source(
        root,
        "decathlon",
        "it has imagesTr/, labelsTr/ and dataset.json",
        (classes,),
        tuple(listed),
        ignored=ignored,
        notes=tuple(notes),
        channels=_described_channels(data),
        left_out=frozenset(path for case in left_out for path in (*case.images, *case.labels)),
    )
    if "labelled" not in data:
        return source
    drawn = Fields(data, str(description)).inner("labelled")
    return with_labelled(source, {case: drawn.text_list(case) for case in drawn.data}, description)


def _listed(
    cases: tuple[CaseFiles, ...], part: str, data: Mapping[str, object], notes: list[str], key: Key
) -> tuple[CaseFiles, ...]:
    """The cases that a list of dataset.json names, with notes about the others; an empty list names all."""
    rows = data.get(part)
    if not isinstance(rows, list) or not rows:
        return cases
    paths = [row.get("label") or row.get("image") if isinstance(row, dict) else row for row in rows]
    names = {key(path) for path in paths if isinstance(path, str)}
    kept = tuple(case for case in cases if _names(case, key) & names)
    if absent := sorted(names.difference(*(_names(case, key) for case in kept))):
        shown = ", ".join(absent[:5])
        notes.append(f"{len(absent)} cases of the {part} list of dataset.json have no files here: {shown}")
    if left := sorted({case.case for case in cases} - {case.case for case in kept}):
        count, shown = f"{len(left)} of {len(cases)} cases", ", ".join(left[:5])
        notes.append(f"{count} are not in the {part} list of dataset.json and are left out: {shown}")
    return kept


def _check_pairs(path: Path, cases: tuple[CaseFiles, ...], rows: object, key: Key) -> None:
    """Refuse a list in dataset.json that pairs an image with another mask than the names do."""
    case_of = {name: case.case for case in cases for name in _names(case, key)}
    for row in rows if isinstance(rows, list) else ():
        pair = [row.get("image"), row.get("label")] if isinstance(row, dict) else []
        named = {case_of.get(key(name)) for name in pair if isinstance(name, str)} - {None}
        if len(named) > 1:
            raise InputError(
                f"{path}: pairs the image {pair[0]!r} with the mask {pair[1]!r}, and the files' names pair others: "
                "name each mask like its image"
            )


def _names(case: CaseFiles, key: Key) -> set[str]:
    """The case's name, and the keys of its files."""
    return {case.case, *map(key, map(str, (*case.labels, *case.images)))}


def _inside(path: str) -> str:
    """A path below a folder of images or masks, without ending: x/a of ./imagesTr/x/a.nii.gz."""
    parts = Path(path.replace("\\", "/")).parts
    start = max((number for number, part in enumerate(parts, 1) if part in FOLDERS), default=0)
    return Path(*parts[start:-1], _stem(path)).as_posix()


def _stem(path: str) -> str:
    return stem_of(Path(path.replace("\\", "/")))


def _read_json(path: Path) -> Mapping[str, object]:
    if path.stat().st_size > MAX_DATASET_JSON:
        raise InputError(f"{path}: must be at most {MAX_DATASET_JSON:,} bytes, got {path.stat().st_size:,}")
    return read_json(path).data


def _described_classes(path: Path, data: Mapping[str, object]) -> tuple[Classes, int | None]:
    """Classes of `labels` in dataset.json (name: value, value: name or a list of names), and the value of `ignore`."""
    labels = _by_number(data.get("labels"))
    if not labels:
        raise InputError(f'{path}: "labels" must give the name and value of every class')
    values: dict[str, int] = {}
    for left, right in labels.items():
        name, value = (right, left) if isinstance(right, str) and not _is_whole(right) else (left, right)
        if not _is_whole(value):
            raise InputError(
                f'{path}: "labels" must give one whole number per class (regions are not supported), got {value!r} for '
                f"{name!r}"
            )
        if name in values:
            raise InputError(f'{path}: "labels" must have every name once, {name!r} has {values[name]} and {value}')
        values[name] = int(str(value))
    ignored = values.pop("ignore", None)
    if 0 not in values.values():
        raise InputError(f'{path}: "labels" must have the value 0, which is the background')
    if ignored in values.values():
        raise InputError(f'{path}: "labels" must give "ignore" a value of its own, got {ignored}')
    ordered = sorted(values, key=lambda name: (values[name] != 0, values[name]))
    return Classes(tuple(ordered), tuple(values[name] for name in ordered)), ignored


def channels_of_description(path: Path) -> tuple[str, ...]:
    """The names of the channels that a dataset.json gives. Raises InputError if it cannot be read."""
    return _described_channels(_read_json(path))


def _described_channels(data: Mapping[str, object]) -> tuple[str, ...]:
    """The names of `channel_names` or `modality` in dataset.json, a list or {"0": name, ...}; none if two are equal."""
    named = _by_number(data.get("channel_names", data.get("modality")))
    names = [named.get(str(number)) for number in range(len(named))]
    texts = [name for name in names if isinstance(name, str) and 0 < len(name) <= MAX_TEXT]
    return tuple(texts) if len(texts) == len(names) and are_distinct(texts) else ()


def _by_number(entry: object) -> Mapping[str, object]:
    """An object of dataset.json; a list of names as an object with their numbers; empty for anything else."""
    if isinstance(entry, list) and all(isinstance(name, str) for name in entry):
        return {str(number): name for number, name in enumerate(entry)}
    return entry if isinstance(entry, dict) else {}


def _is_whole(value: object) -> bool:
    return type(value) is int or (isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value, re.ASCII) is not None)
