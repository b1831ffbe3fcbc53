"""Codings, which map label values to classes: those of CHAOS, the user's own, and those derived from the masks."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from attunet.classes import CHAOS_MR, Classes
from attunet.errors import InputError
from attunet.io.pictures.mask_colours import codes_of, colour_name, is_colour

LOOKUP_RANGE = 2**16  # label values this close together are counted and mapped through a table

# Codings of the same organs in copies of CHAOS: plain, the official greys, and another common export.
CHAOS_GREYS = Classes(CHAOS_MR.names, (0, 63, 126, 189, 252))
CHAOS_CODINGS = (CHAOS_MR, CHAOS_GREYS, Classes(CHAOS_MR.names, (0, 80, 160, 240, 255)))


def choose_coding(values: Collection[int], codings: Sequence[Classes], where: Path | str) -> Classes:
    """Return the first coding that has all label values of a file. Raises InputError if no coding has one of them, with
    the value and the file.
    """
    for coding in codings:
        if set(values) <= set(coding.values):
            return coding
    unknown = min(values, key=lambda value: (sum(value in coding.values for coding in codings), value))
    known = "; ".join(", ".join(map(value_text, c.values)) for c in codings)
    raise InputError(
        f"{where}: label values must be among {known}, got {value_text(unknown)}; name it in dataset.json or with "
        "--classes"
    )


def classes_of_values(values: Collection[int], where: Path | str) -> Classes:
    """Make classes for label values without names: 0 is the background, the others are named by value or colour."""
    foreground = sorted(set(values) - {0})
    if not foreground:
        raise InputError(
            f"{where}: a mask must have a value besides 0; no mask has: are these the masks? --masks NAME chooses "
            "others"
        )
    names = [colour_name(value) if is_colour(value) else f"label {value}" for value in foreground]
    return Classes(("background", *(names if len(names) > 1 else ["foreground"])), (0, *foreground))


def parse_classes(text: str) -> tuple[Classes, int | None]:
    """Classes of a user's `liver=1,left kidney=3` or `liver=#ff0000`, and the ignored value or None.

    `background` is 0 unless it is given, `ignore` names the value that nothing counts. Raises InputError for any other
    text.
    """
    values: dict[str, int] = {}
    for part in text.split(","):
        name, equals, value = (p.strip() for p in part.rpartition("="))
        number = _parse_value(value)
        if not equals or not name or number is None or name in values:
            raise InputError(f"classes: must be name=value,..., every name once, got {part.strip()!r}")
        values[name] = number
    ignored = values.pop("ignore", None)
    values = {"background": values.pop("background", 0), **values}
    if ignored in values.values():
        raise InputError(f"classes: ignore must have a value of its own, got {ignored}")
    return Classes(tuple(values), tuple(values.values())), ignored


def read_label_maps(paths: Sequence[Path]) -> tuple[Classes, ...]:
    """The coding of CVAT's labelmap.txt; none without such a file. Raises InputError where two files disagree."""
    maps = list(map(_read_label_map, paths))
    names = {value: name for one in maps for value, name in zip(one.values, one.names, strict=True)}
    colours = {name: value for one in maps for value, name in zip(one.values, one.names, strict=True)}
    for path, one in zip(paths, maps, strict=True):
        for value, name in zip(one.values, one.names, strict=True):
            if names[value] != name or colours[name] != value:
                other = f"another labelmap.txt of this source has {names[value]} = {value_text(colours[names[value]])}"
                raise InputError(f"{path}: has {name} = {value_text(value)}, {other}: prepare each export alone")
    return (Classes(tuple(names.values()), tuple(names)),) if maps else ()


def _read_label_map(path: Path) -> Classes:
    """The classes of lines `name:red,green,blue:parts:actions`; black is the background."""
    names: dict[int, str] = {0: "background"}
    for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines()[: 2**16]:
        if match := re.match(r"([^#:][^:]*):(\d{1,3}),(\d{1,3}),(\d{1,3}):", line):
            colour = [int(match[n]) for n in (2, 3, 4)]
            names[int(codes_of(np.array(colour)))] = match[1] if any(colour) else "background"
    return Classes(tuple(names.values()), tuple(names))


def _parse_value(text: str) -> int | None:
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return int(codes_of(np.array(list(bytes.fromhex(text[1:])))))
    return int(text) if re.fullmatch(r"-?[0-9]{1,15}", text) else None


def value_text(value: int) -> str:
    """Format a label value as users write it: a number, or `#rrggbb` for the code of a colour."""
    return colour_name(value) if is_colour(value) else str(value)


def to_indices(labels: np.ndarray, mapping: Mapping[int, int], where: Path | str) -> np.ndarray:
    """Map label values to class indices uint8; raises InputError for a value that is not in the mapping."""
    if unknown := [v for v in label_values(labels) if v not in mapping]:
        raise InputError(f"{where}: label values must be among {', '.join(map(str, mapping))}, got {unknown[0]}")
    low = min(mapping)
    if max(mapping) - low < LOOKUP_RANGE:
        table = np.zeros(max(mapping) - low + 1, dtype=np.uint8)
        table[np.array(list(mapping)) - low] = list(mapping.values())
        return table[labels.astype(np.int64) - low]
    indices = np.zeros(labels.shape, dtype=np.uint8)
    for value, index in mapping.items():
        indices[labels == value] = index
    return indices


def label_values(labels: np.ndarray) -> dict[int, int]:
    """Count the voxels of every value of an integer array, in ascending order."""
    low = int(labels.min())
    if int(labels.max()) - low < LOOKUP_RANGE:
        counts = np.bincount(labels.ravel().astype(np.int64) - low)
        return {low + int(v): int(counts[v]) for v in np.flatnonzero(counts)}
    values, numbers = np.unique(labels, return_counts=True)
    return dict(zip(values.tolist(), numbers.tolist(), strict=True))
