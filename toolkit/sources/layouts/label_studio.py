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
from attunet.sources.case_files import CaseFiles, Source, SourceOptions
from attunet.sources.layouts.matching import LABEL_STUDIO_MASK, case_names, names_one_of
from attunet.sources.layouts.numbers import number_columns

RULE = "label-studio-tasks"
INSTEAD = "export the project as JSON, which names the pictures, and put that file beside them"

Reading = dict[int, Path]  # the picture of each task


@dataclass(frozen=True)
class _Mask:
    path: Path
    task: int
    annotation: int
    label: str


def find_label_studio(root: Path, files: list[Path], options: SourceOptions) -> Source | None:
    """Cases of pictures with the masks of Label Studio's PNG export, in any folders. Raises InputError if there are no
    pictures, no reading of the tasks' numbers fits, or several do.
    """
    every = [mask for path in files if (mask := _mask(path)) is not None]
    if not every:
        return None
    exported = [mask for mask in every if names_one_of(options.masks, mask.path.name)] or every
    if arrays := [mask.path for mask in exported if mask.path.suffix.lower() == ".npy"]:
        raise InputError(
            f"{arrays[0]}: a mask of Label Studio as NumPy's array is not read: export the brush labels as PNG"
        )
    pictures = [path for path in files if is_single_file(path) and _mask(path) is None]
    if not pictures:
        raise InputError(
            f"{exported[0].path}: Label Studio's PNG export has masks alone: put the pictures into a folder images/ "
            "beside them"
        )
    counted, decisions = _first_annotations(exported)
    picture_of, reading = _pictures(counted, pictures, options.choices)
    values = {label: value for value, label in enumerate(sorted({mask.label for mask in counted}), 1)}
    masks_of: dict[Path, list[_Mask]] = {picture: [] for picture in pictures}
    for mask in sorted(counted, key=lambda mask: (mask.label, mask.path)):
        masks_of[picture_of[mask.task]].append(mask)
    names = case_names([(picture.parent / stem_of(picture)).relative_to(root) for picture in pictures])
    cases = tuple(
        CaseFiles(name, name, (picture,), tuple(m.path for m in masks), tuple(values[m.label] for m in masks))
        for name, (picture, masks) in zip(names, masks_of.items(), strict=True)
    )
    codings = (Classes(("background", *values), (0, *values.values())),)
    reason = f"{len(counted)} masks have the names of Label Studio's PNG export"
    return Source(root, "label-studio", reason, codings, cases, decisions=(*decisions, reading))


def _mask(path: Path) -> _Mask | None:
    match = LABEL_STUDIO_MASK.fullmatch(path.name)
    return _Mask(path, int(match[1]), int(match[2]), match[4] or match[3]) if match else None


def _first_annotations(masks: Sequence[_Mask]) -> tuple[list[_Mask], list[Decision]]:
    """The masks of the first annotation of each task, and a decision where a task has others."""
    first: dict[int, int] = {}
    for mask in masks:
        first[mask.task] = min(mask.annotation, first.get(mask.task, mask.annotation))
    kept = [mask for mask in masks if mask.annotation == first[mask.task]]
    if len(kept) == len(masks):
        return kept, []
    others = f"{len(masks) - len(kept)} of {len(masks)} masks are of others"
    text = f"of several annotations of a task the first counts; {others}"
    return kept, [Decision("label-studio-annotations", text)]


def _pictures(masks: Sequence[_Mask], pictures: Sequence[Path], choices: Choices) -> tuple[Reading, Decision]:
    """The picture of each task, and the decision that says so."""
    wanted, tasks = choice(RULE, choices), sorted({mask.task for mask in masks})
    readings = {
        name: reading
        for name, reading in _readings(tasks, pictures).items()
        if wanted in ("auto", name) and _sizes_agree(masks, reading)
    }
    if not readings:
        raise InputError(
            f"{masks[0].path}: no reading of its task's number gives each task a picture of its masks' size: "
            f"{len(tasks)} tasks from {tasks[0]} to {tasks[-1]}, {len(pictures)} pictures; {INSTEAD}"
        )
    (name, reading), *others = readings.items()
    for other_name, other in others:
        if differing := [task for task in tasks if reading[task] != other[task]]:
            task = differing[0]
            path = next(mask.path for mask in masks if mask.task == task)
            options = dict.fromkeys(f"--read {RULE}={one.split(',')[0]}" for one in (name, other_name))
            raise InputError(
                f"{path}: task {task} is {reading[task].name} by {name} and {other[task].name} by {other_name}; choose "
                f"with {' or '.join(options)}, or {INSTEAD}"
            )
    example = f"task {tasks[0]} is {reading[tasks[0]].name}"
    return reading, Decision(RULE, f"pictures of Label Studio's tasks are matched by {name}: {example}")


def _readings(tasks: Sequence[int], pictures: Sequence[Path]) -> dict[str, Reading]:
    """Every reading under which each task has a picture: by a number in its name, as the Nth picture, in order."""
    readings: dict[str, Reading] = {}
    for place, column in enumerate(number_columns([stem_of(path) for path in pictures]), 1):
        numbers = dict(zip(column, pictures, strict=True))
        if len(numbers) == len(pictures) and numbers.keys() >= set(tasks):
            name = f"name, number {place}" if "name" in readings else "name"
            readings[name] = {task: numbers[task] for task in tasks}
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
