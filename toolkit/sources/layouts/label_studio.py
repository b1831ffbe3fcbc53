"""Label Studio's PNG export of brush masks, a file for each annotated region:
`task-1-annotation-2-by-3-tag-liver-0.png`.

The names contain the numbers of tasks instead of the names of pictures, so the possible meanings of the numbers are
tried.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attunet.classes import Classes
from attunet.decisions import Choices, Decision, choice
from attunet.errors import InputError
from attunet.io.pictures.images import picture_size
from attunet.io.readers import is_single_file, stem_of
from attunet.sources.case_files import CaseFiles, Source
from attunet.sources.layouts.matching import LABEL_STUDIO_MASK, flat

RULE = "label-studio-tasks"
INSTEAD = "export the project as JSON, which names the pictures, and put that file beside them"

Reading = dict[int, Path]  # the picture of each task


@dataclass(frozen=True)
class _Mask:
    path: Path
    task: int
    annotation: int
    label: str


def find_label_studio(
    root: Path, files: list[Path], masks: Sequence[str] = (), choices: Choices | None = None
) -> Source | None:
    """Cases of pictures with the masks of Label Studio's PNG export, in any folders.

    Args:
        root: the folder.
        files: its files.
        masks: parts of names of the masks that count (`--masks by-3` for one annotator's).
        choices: the user's readings.

    Raises:
        InputError: where there are no pictures, no reading of the tasks' numbers fits, or several do.
    """
    exported = [mask for path in files if (mask := _mask(path)) is not None]
    if not exported:
        return None
    if chosen := [mask for mask in exported if any(text.lower() in mask.path.name.lower() for text in masks)]:
        exported = chosen
    if arrays := [mask for mask in exported if mask.path.suffix.lower() == ".npy"]:
        raise InputError(
            f"{arrays[0].path}: a mask of Label Studio as NumPy's array is not read: export the brush labels as PNG"
        )
    pictures = [path for path in files if is_single_file(path) and _mask(path) is None]
    if not pictures:
        raise InputError(
            f"{exported[0].path}: Label Studio's PNG export has masks alone: put the pictures into a folder images/ "
            "beside them"
        )
    exported, decisions = _first_annotations(exported)
    picture_of, reading = _pictures(exported, pictures, choices or {})
    values = {label: value for value, label in enumerate(sorted({mask.label for mask in exported}), 1)}
    unique = len({stem_of(path) for path in pictures}) == len(pictures)
    cases = []
    for picture in pictures:
        name = stem_of(picture) if unique else flat((picture.parent / stem_of(picture)).relative_to(root))
        drawn = sorted(
            (mask for mask in exported if picture_of[mask.task] == picture),
            key=lambda mask: (values[mask.label], mask.path),
        )
        cases.append(
            CaseFiles(name, name, (picture,), tuple(m.path for m in drawn), tuple(values[m.label] for m in drawn))
        )
    coding = Classes(("background", *values), (0, *values.values()))
    reason = f"{len(exported)} masks have the names of Label Studio's PNG export"
    return Source(root, "label-studio", reason, (coding,), tuple(cases), decisions=(*decisions, reading))


def _mask(path: Path) -> _Mask | None:
    match = LABEL_STUDIO_MASK.fullmatch(path.name)
    return _Mask(path, int(match[1]), int(match[2]), match[4] or match[3]) if match else None


def _first_annotations(masks: Sequence[_Mask]) -> tuple[list[_Mask], list[Decision]]:
    """The masks of the first annotation of each task, and a decision where a task has others."""
    first = {
        task: min(mask.annotation for mask in masks if mask.task == task) for task in {mask.task for mask in masks}
    }
    kept = [mask for mask in masks if mask.annotation == first[mask.task]]
    if len(kept) == len(masks):
        return kept, []
    text = (
        f"of several annotations of a task the first counts; {len(masks) - len(kept)} of {len(masks)} masks are of "
        "others"
    )
    return kept, [Decision("label-studio-annotations", text)]


def _pictures(masks: Sequence[_Mask], pictures: Sequence[Path], choices: Choices) -> tuple[Reading, Decision]:
    """The picture of each task, and the decision that says so."""
    wanted, tasks = choice(RULE, choices), sorted({mask.task for mask in masks})
    readings = {
        name: one
        for name, one in _readings(tasks, pictures).items()
        if wanted in ("auto", name) and _sizes_agree(masks, one)
    }
    example = masks[0]
    if not readings:
        raise InputError(
            f"{example.path}: no reading of its task's number gives each task a picture of its masks' size: "
            f"{len(tasks)} tasks from {tasks[0]} to {tasks[-1]}, {len(pictures)} pictures; {INSTEAD}"
        )
    (name, reading), *others = readings.items()
    for other_name, other in others:
        if differing := [task for task in tasks if reading[task] != other[task]]:
            task = differing[0]
            options = dict.fromkeys(f"--read {RULE}={one.split(',')[0]}" for one in (name, other_name))
            raise InputError(
                f"{next(mask.path for mask in masks if mask.task == task)}: task {task} is {reading[task].name} by "
                f"{name} and {other[task].name} by {other_name}; choose with {' or '.join(options)}, or {INSTEAD}"
            )
    return reading, Decision(
        RULE, f"pictures of Label Studio's tasks are matched by {name}: task {tasks[0]} is {reading[tasks[0]].name}"
    )


def _readings(tasks: Sequence[int], pictures: Sequence[Path]) -> dict[str, Reading]:
    """Every reading under which each task has a picture: by a number in its name, as the Nth picture, in order."""
    readings: dict[str, Reading] = {}
    rows = [[int(digits[-18:]) for digits in re.findall(r"\d+", stem_of(path))] for path in pictures]
    for column in range(min(map(len, rows), default=0)):
        numbers = {row[column]: path for row, path in zip(rows, pictures, strict=True)}
        if len(numbers) == len(pictures) and all(task in numbers for task in tasks):
            readings["name" if "name" not in readings else f"name, number {column + 1}"] = {
                task: numbers[task] for task in tasks
            }
    orders = {
        "": sorted(pictures, key=lambda path: _natural(path.name)),
        ", letter by letter": sorted(pictures, key=lambda path: path.name),
    }
    for words, ordered in orders.items():
        if tasks[0] >= 1 and tasks[-1] <= len(ordered):
            readings[f"position{words}"] = {task: ordered[task - 1] for task in tasks}
        if len(tasks) == len(ordered):
            readings[f"order{words}"] = dict(zip(tasks, ordered, strict=True))
    return readings


def _natural(name: str) -> list[tuple[int, int | str]]:
    """A key that sorts p2 before p10."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]


def _sizes_agree(masks: Sequence[_Mask], reading: Mapping[int, Path]) -> bool:
    return all(sorted(picture_size(mask.path)) == sorted(picture_size(reading[mask.task])) for mask in masks)
