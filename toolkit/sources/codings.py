"""How label values stand for classes: the codings of CHAOS, a user's own, and those that the masks themselves show."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from attunet.classes import CHAOS_MR, Classes
from attunet.errors import InputError

LOOKUP_RANGE = 2**16  # label values this close together are counted and mapped through a table

# How copies of CHAOS write the same organs: plain, the official greys, and another common export.
CHAOS_CODINGS = (
    CHAOS_MR,
    Classes(CHAOS_MR.names, (0, 63, 126, 189, 252)),
    Classes(CHAOS_MR.names, (0, 80, 160, 240, 255)),
)


def choose_coding(values: Collection[int], codings: Sequence[Classes], where: Path | str) -> Classes:
    """The first coding that has all label values of a file; without codings, one made of the values.

    Raises InputError that names the file and a value that no coding has.
    """
    present = set(values)
    if not codings:
        return classes_of_values(present, where)
    for coding in codings:
        if present <= set(coding.values):
            return coding
    unknown = min(present, key=lambda v: (sum(v in c.values for c in codings), v))
    known = "; ".join(", ".join(map(str, c.values)) for c in codings)
    raise InputError(f"{where}: label values must be among {known}, got {unknown}")


def classes_of_values(values: Collection[int], where: Path | str) -> Classes:
    """Classes for label values that nobody has named: 0 is the background, the others are called by their value."""
    foreground = sorted(set(values) - {0})
    if not foreground:
        raise InputError(f"{where}: a mask must have a value besides 0; no mask has")
    names = ["foreground"] if len(foreground) == 1 else [f"label {v}" for v in foreground]
    return Classes(("background", *names), (0, *foreground))


def parse_classes(text: str) -> tuple[Classes, int | None]:
    """`liver=1,left kidney=3` as classes, background 0 unless it is given; `ignore=V` is the value that nothing counts."""
    values: dict[str, int] = {}
    for part in text.split(","):
        name, equals, value = (p.strip() for p in part.rpartition("="))
        if not equals or not name or not value.lstrip("-").isascii() or not value.lstrip("-").isdigit() or name in values:
            raise InputError(f"classes: must be name=value,..., every name once, got {part.strip()!r}")
        values[name] = int(value)
    ignored = values.pop("ignore", None)
    values = {"background": values.pop("background", 0), **values}
    return Classes(tuple(values), tuple(values.values())), ignored


def to_indices(labels: np.ndarray, mapping: Mapping[int, int], where: Path | str) -> np.ndarray:
    """Label values to class indices uint8 by `{value: index}`. Raises InputError for a value that is not in the mapping."""
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
    """Every value of an integer array, ascending, with the number of voxels that have it."""
    low = int(labels.min())
    if int(labels.max()) - low < LOOKUP_RANGE:
        counts = np.bincount(labels.ravel().astype(np.int64) - low)
        return {low + int(v): int(counts[v]) for v in np.flatnonzero(counts)}
    values, numbers = np.unique(labels, return_counts=True)
    return {int(v): int(n) for v, n in zip(values, numbers, strict=True)}
