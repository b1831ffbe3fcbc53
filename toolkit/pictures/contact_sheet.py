"""Many cases on one page: the slice with the most labels of each, with the outlines of its classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from attunet.classes import Classes
from attunet.pictures.figure import new_figure, save, show_grey
from attunet.pictures.outlines import mark_sides, outline
from attunet.pictures.view import View, fullest_slice
from attunet.volume import Volume


@dataclass(frozen=True, eq=False)
class Tile:
    """image (rows, columns); labels: class indices of the same shape, or None."""

    title: str
    image: np.ndarray
    labels: np.ndarray | None
    row_over_column: float
    sides: tuple[str, ...] = ()


def tile(title: str, volume: Volume, view: View, labels: np.ndarray | None) -> Tile:
    """The slice of a volume with the most classes and, among those, the most foreground; the middle one without labels."""
    image = view.slices(volume.data[0])
    shown = None if labels is None else view.slices(labels)
    index = len(image) // 2 if shown is None else fullest_slice(shown)
    return Tile(title, image[index], None if shown is None else shown[index], view.row_over_column, view.sides)


def draw_contact_sheet(path: Path, tiles: Sequence[Tile], classes: Classes, *, columns: int = 4, title: str = "") -> Path:
    """All tiles in reading order, with one legend of the classes."""
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    figure = new_figure(2.8 * columns, 3.0 * rows + 0.7)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    for axes, one in zip(grid, tiles, strict=False):
        show_grey(axes, one.image, one.row_over_column)
        if one.labels is not None:
            for index, color in enumerate(classes.colors[1:], start=1):
                outline(axes, one.labels == index, color=color, width=1.2)
        mark_sides(axes, one.sides)
        axes.set_title(one.title, fontsize=9)
    if any(one.labels is not None for one in tiles):
        handles = [Line2D([], [], color=c, linewidth=2, label=n) for n, c in zip(classes.names[1:], classes.colors[1:], strict=True)]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=12)
    return save(figure, path)
