"""Regions that programs for drawing describe in words and numbers."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from attunet.errors import InputError
from attunet.io.reading import MAX_VOXELS

LABEL_STUDIO_PREFIX = re.compile(r"[0-9a-f]{8}-")

Row = Mapping[str, Any]  # an object of a JSON file; `annotations` refuses strange values where they are used


class NotAnnotations(InputError):
    """A file of another kind than the annotations that are read."""


# A part of a mask that holds all of its pixels: `(rows, columns)` of 0 and 1, and its first row and column
Block = tuple[np.ndarray, int, int]


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A mask as its file packs it, since a file of some bytes may hold masks of gigabytes."""

    size: tuple[int, int]  # rows and columns, which are compared with the picture before anything is unpacked
    unpack: Callable[[], Block]  # gives the mask
    corner: tuple[int, int] = (0, 0)  # row and column of its first pixel on the picture


@dataclass(frozen=True, eq=False)
class Region:
    """One annotated region of a picture: its class, and corners `(n, 2)` of polygons as x and y, or a mask."""

    name: str
    polygons: tuple[np.ndarray, ...] = ()
    mask: PackedMask | None = None


@dataclass(eq=False)
class Annotations:
    """The annotations of a file; its reader adds one picture after the other."""

    values: dict[str, int] = field(default_factory=dict)  # `{class name: label value}`
    # The regions of each picture by its name, later ones on top
    pictures: dict[str, list[Region]] = field(default_factory=dict)
    # Width and height in pixels on which a picture was annotated, by its name, where the file says them
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    undrawn: int = 0  # the number of annotations without an outline (boxes, points), which are left out
    repeated: int = 0  # the number of pictures that were annotated more than once; the first annotation counts
    empty: int = 0  # the number of pictures that nobody has annotated; they are left out

    def add_picture(self, name: str, regions: list[Region]) -> None:
        """Add a picture with its regions. Raises InputError for a second one of this name."""
        if name in self.pictures:
            raise InputError(f"has the picture {name} twice, so nothing shows which regions it has: leave one out")
        self.pictures[name] = regions

    def add_size(self, name: str, width: int, height: int) -> None:
        """Note the size of a picture. Raises InputError where the file says another one elsewhere."""
        if self.sizes.setdefault(name, (width, height)) != (width, height):
            known = " × ".join(map(str, self.sizes[name]))
            both = f"{known} and on {width} × {height} pixels"
            raise InputError(f"{name}: is annotated on {both}: export the annotations again")

    def name_of(self, picture: Path) -> str | None:
        """The file's name of a picture, by the longest common end of its path; None where the file does not name it.

        Raises InputError where the file has several names that end alike.
        """
        ends = ("/".join(picture.parts[start:]) for start in range(len(picture.parts)))
        if name := next((end for end in ends if end in self.pictures), None):
            return name
        first, *others = self._by_last_part.get(picture.name, [None])
        if others:
            raise InputError(f"names {first} and {others[0]}, and {picture.name} may be either: keep the folders")
        return first

    @cached_property
    def _by_last_part(self) -> dict[str, list[str]]:
        """Names of pictures by their last part, and by that without Label Studio's prefix where none has this name."""
        plain: defaultdict[str, list[str]] = defaultdict(list)
        shortened: defaultdict[str, list[str]] = defaultdict(list)
        for name in self.pictures:
            last = PurePosixPath(name).name
            plain[last].append(name)
            shortened[LABEL_STUDIO_PREFIX.sub("", last, 1)].append(name)
        return shortened | plain


def numbered(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(names), 1)}


def block_of_runs(counts: Sequence[int], lines: int, length: int) -> tuple[np.ndarray, int]:
    """Pixels `(lines, length)` of 0 and 1 of a mask of alternating runs, of 0 first, that follow its lines: from the
    first line with a 1 to the last, and the number of that first line. Raises InputError for runs that are cut short.
    """
    size = lines * length
    if (
        size > MAX_VOXELS
        or len(counts) > size + 1
        or set(map(type, counts)) != {int}
        or min(counts) < 0
        or sum(counts) != size
    ):
        raise InputError(f"a mask's run lengths must be whole numbers that fill {size:,} pixels; export it again")
    ends = np.cumsum(np.array(counts, dtype=np.int64))
    runs = np.stack([ends[0:-1:2], ends[1::2]], axis=1)
    runs = runs[runs[:, 0] < runs[:, 1]]
    if not len(runs):
        return np.zeros((0, length), dtype=np.int8), 0
    first, last = int(runs[0, 0]) // length, -(-int(runs[-1, 1]) // length)
    steps = np.zeros((last - first) * length + 1, dtype=np.int8)
    steps[runs[:, 0] - first * length] += 1
    steps[runs[:, 1] - first * length] -= 1
    return np.cumsum(steps[:-1], dtype=np.int8).reshape(-1, length), first
