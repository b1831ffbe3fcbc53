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

MAX_WIDE_TILES = 24  # more tiles are drawn smaller
WIDE, NARROW = 2.8, 1.9  # inches per tile


@dataclass(frozen=True, eq=False)
class Tile:
    """One panel.

    Args:
        title: above the panel.
        image: `(rows, columns)`.
        labels: class indices of the same shape, or None.
        row_over_column: height of a pixel over its width.
        sides: letters for the patient's sides, see `View`.
    """

    title: str
    image: np.ndarray
    labels: np.ndarray | None
    row_over_column: float
    sides: tuple[str, ...] = ()


def tile(title: str, volume: Volume, view: View, labels: np.ndarray | None) -> Tile:
    """Make the tile of a volume: the slice with the most classes and, among those, the most foreground;
    the middle one without labels.

    A scan is shown by its first channel, a photograph by the mean of its colours.
    """
    image = view.slices(volume.data.mean(axis=0, dtype=np.float32) if volume.unit == "pixel" else volume.data[0])
    shown = None if labels is None else view.slices(labels)
    index = len(image) // 2 if shown is None else fullest_slice(shown)
    return Tile(title, image[index], None if shown is None else shown[index], view.row_over_column, view.sides)


def draw_contact_sheet(
    path: Path, tiles: Sequence[Tile], classes: Classes, *, columns: int | None = None, title: str = ""
) -> Path:
    """Draw all tiles in reading order with one legend of the classes;
    by default in 4 columns, or in 10 if there are many tiles.
    """
    width = WIDE if columns is not None or len(tiles) <= MAX_WIDE_TILES else NARROW
    columns = min(columns or (4 if len(tiles) <= MAX_WIDE_TILES else 10), len(tiles))
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
        handles = [
            Line2D([], [], color=c, linewidth=2, label=n)
            for n, c in zip(classes.names[1:], classes.colors[1:], strict=True)
        ]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False, fontsize=9
        )
    if title:
        figure.suptitle(title, fontsize=12)
    return save(figure, path)


def _short(name: str, max_letters: int) -> str:
    """Shorten a name from its beginning, because names differ at their ends."""
    return name if len(name) <= max_letters else f"…{name[1 - max_letters :]}"


MAX_CASES = 200


def draw_cases(
    picture: Path,
    cases: Iterable[tuple[str, Volume, np.ndarray | None]],
    classes: Classes,
    *,
    slice_axis: int,
    title: str,
) -> None:
    """Draw a contact sheet of cases, of at most the first `MAX_CASES`.

    Args:
        picture: the PNG file.
        cases: name, volume, and class indices `(X, Y, Z)` or None; read one after the other.
        classes: names and colours.
        slice_axis: see `view_of`.
        title: of the figure.
    """
    from attunet.plots.view import view_of

    tiles: list[Tile] = []
    for name, volume, labels in cases:
        if len(tiles) == MAX_CASES:
            title = f"{title}, the first {MAX_CASES} of them"
            break
        view = view_of(volume, slice_axis=slice_axis, oriented=volume.unit == "mm")
        tiles.append(tile(name, volume, view, labels))
    draw_contact_sheet(picture, tiles, classes, title=title)
