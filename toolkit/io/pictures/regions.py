"""Regions that programs for drawing describe in words and numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from attunet.errors import InputError
from attunet.io.reading import MAX_VOXELS

LABEL_STUDIO_PREFIX = re.compile(r"[0-9a-f]{8}-")


class NotAnnotations(InputError):
    """A file of another kind than the annotations that are read."""


@dataclass(frozen=True, eq=False)
class Region:
    """One annotated region of a picture: its class, and corners `(n, 2)` of polygons as x and y in pixels, or a mask.

    A mask has pixels `(rows, columns)` of 0 and 1; `corner` is the column and row of its first one.
    """

    name: str
    polygons: tuple[np.ndarray, ...] = ()
    mask: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Annotations:
    """The annotations of a file.

    Args:
        values: `{class name: label value}`.
        pictures: the regions of each picture by its name, later ones on top.
        sizes: width and height in pixels on which a picture was annotated, by its name, where the file says them.
        undrawn: the number of annotations without an outline (boxes, points), which are left out.
        repeated: the number of pictures that were annotated more than once; the first annotation counts.
        empty: the number of pictures that nobody has annotated; they are left out.
    """

    values: dict[str, int]
    pictures: dict[str, list[Region]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    undrawn: int = 0
    repeated: int = 0
    empty: int = 0

    def name_of(self, picture: Path) -> str | None:
        """The file's name of a picture, by the longest common end of its path; None where the file does not name it."""
        plain = picture.as_posix()
        matching = [
            name for name in self.pictures if plain.endswith("/" + name) or PurePosixPath(name).name == picture.name
        ] or [n for n in self.pictures if LABEL_STUDIO_PREFIX.sub("", PurePosixPath(n).name, 1) == picture.name]
        return max(matching, key=lambda name: plain.endswith("/" + name)) if matching else None


def add_size(sizes: dict[str, tuple[int, int]], name: str, width: int, height: int) -> None:
    """Notes the size of a picture. Raises InputError where the file says another one elsewhere."""
    if sizes.setdefault(name, (width, height)) != (width, height):
        known = " × ".join(map(str, sizes[name]))
        both = f"{known} and on {width} × {height} pixels"
        raise InputError(f"{name}: is annotated on {both}: export the annotations again")


def numbered(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(names), 1)}


def pixels_of_runs(counts: Sequence[int], size: int) -> np.ndarray:
    """Pixels of alternating runs, of 0 first."""
    if size > MAX_VOXELS or min(counts, default=0) < 0 or sum(counts) > size:
        raise InputError(f"a mask's run lengths must fill {size:,} pixels, got {sum(counts):,}")
    pixels = np.zeros(size, dtype=np.uint8)
    at = 0
    for number, count in enumerate(counts):
        pixels[at : at + int(count)] = number % 2
        at += int(count)
    return pixels
