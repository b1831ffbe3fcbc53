"""A page with every case at a glance: the slice with the most labels, with the outlines of its classes."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from attunet.classes import Classes
from attunet.volume import Volume

MOST_CASES = 200


def draw_cases(
    picture: Path, cases: Iterable[tuple[str, Volume, np.ndarray | None]], classes: Classes, *, slice_axis: int, title: str
) -> None:
    """cases: name, volume, and class indices `(X, Y, Z)` or None, read one after the other; of more than `MOST_CASES` the title says so."""
    from attunet.pictures.contact_sheet import Tile, draw_contact_sheet, tile
    from attunet.pictures.view import view_of

    tiles: list[Tile] = []
    for name, volume, labels in cases:
        if len(tiles) == MOST_CASES:
            title = f"{title}, the first {MOST_CASES} of them"
            break
        view = view_of(volume, slice_axis=slice_axis, oriented=volume.unit == "mm")
        tiles.append(tile(name, volume, view, labels))
    draw_contact_sheet(picture, tiles, classes, title=title)
