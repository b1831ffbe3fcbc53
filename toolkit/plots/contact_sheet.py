"""Many cases on one page: the slice with the most labels of each, with the outlines of its classes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from attunet.classes import Classes
from attunet.plots.figure import new_figure, save, show_grey
from attunet.plots.outlines import mark_sides, outline
from attunet.plots.view import View, fullest_slice
from attunet.volumes.volume import Volume

FEW = 24
WIDE, NARROW = 2.8, 1.9  # inches a tile


@dataclass(frozen=True, eq=False)
class Tile:
    """image (rows, columns); labels: class indices of the same shape, or None."""

    title: str
    image: np.ndarray
    labels: np.ndarray | None
    row_over_column: float
    sides: tuple[str, ...] = ()


def tile(title: str, volume: Volume, view: View, labels: np.ndarray | None) -> Tile:
    """The slice of a volume with the most classes and, among those, the most foreground; the middle one without labels.

    Of a scan the first channel is shown, of a picture the mean of its colours.
    """
    image = view.slices(volume.data.mean(axis=0, dtype=np.float32) if volume.unit == "pixel" else volume.data[0])
    shown = None if labels is None else view.slices(labels)
    index = len(image) // 2 if shown is None else fullest_slice(shown)
    return Tile(title, image[index], None if shown is None else shown[index], view.row_over_column, view.sides)


def draw_contact_sheet(path: Path, tiles: Sequence[Tile], classes: Classes, *, columns: int | None = None, title: str = "") -> Path:
    """All tiles in reading order, with one legend of the classes. columns: 4, or 10 of smaller tiles where there are many."""
    width = WIDE if columns is not None or len(tiles) <= FEW else NARROW
    columns = min(columns or (4 if len(tiles) <= FEW else 10), len(tiles))
    rows = -(-len(tiles) // columns)
    height = max(one.image.shape[0] * one.row_over_column / one.image.shape[1] for one in tiles)
    figure = new_figure(width * columns, (width * min(height, 1.5) + 0.25) * rows + 0.7)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    for axes, one in zip(grid, tiles, strict=False):
        show_grey(axes, one.image, one.row_over_column)
        if one.labels is not None:
            for index, color in enumerate(classes.colors[1:], start=1):
                outline(axes, one.labels == index, color=color, width=1.2)
        mark_sides(axes, one.sides)
        axes.set_title(_short(one.title, int(width * 12)), fontsize=9)
    if any(one.labels is not None for one in tiles):
        handles = [Line2D([], [], color=c, linewidth=2, label=n) for n, c in zip(classes.names[1:], classes.colors[1:], strict=True)]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=12)
    return save(figure, path)


def _short(name: str, most: int) -> str:
    """A name of at most so many letters; what tells names apart is at their ends."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


MOST_CASES = 200


def draw_cases(
    picture: Path, cases: Iterable[tuple[str, Volume, np.ndarray | None]], classes: Classes, *, slice_axis: int, title: str
) -> None:
    """cases: name, volume, and class indices `(X, Y, Z)` or None, read one after the other; of more than `MOST_CASES` the title says so."""
    from attunet.plots.view import view_of

    tiles: list[Tile] = []
    for name, volume, labels in cases:
        if len(tiles) == MOST_CASES:
            title = f"{title}, the first {MOST_CASES} of them"
            break
        view = view_of(volume, slice_axis=slice_axis, oriented=volume.unit == "mm")
        tiles.append(tile(name, volume, view, labels))
    draw_contact_sheet(picture, tiles, classes, title=title)
