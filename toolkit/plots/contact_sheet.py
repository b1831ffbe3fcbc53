"""Many cases on one page: the slice with the most labels of each, with the outlines of its classes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from attunet.classes import Classes
from attunet.plots.figure import panel_grid, save, show_grey
from attunet.plots.outlines import mark_sides, outline_classes
from attunet.plots.view import View, fullest_slice, view_of
from attunet.volumes.volume import Volume

MAX_WIDE_TILES = 24  # more tiles are drawn smaller
WIDE, NARROW = 2.8, 1.9  # inches per tile
MAX_CASES = 200


@dataclass(frozen=True, eq=False)
class Tile:
    """One panel: an image `(rows, columns)`, class indices or None, and the proportions and sides of a `View`."""

    title: str
    image: np.ndarray
    labels: np.ndarray | None
    row_over_column: float
    sides: tuple[str, ...] = ()


def tile(title: str, volume: Volume, view: View, labels: np.ndarray | None) -> Tile:
    """Make the tile of a volume: its fullest slice, or the middle one without labels.

    A scan is shown by its first channel, a photograph by the mean of its colours.
    """
    image = view.slices(volume.data.mean(axis=0, dtype=np.float32) if volume.unit == "pixel" else volume.data[0])
    shown = None if labels is None else view.slices(labels)
    index = len(image) // 2 if shown is None else fullest_slice(shown)
    return Tile(title, image[index], None if shown is None else shown[index], view.row_over_column, view.sides)


def draw_contact_sheet(
    path: Path, tiles: Sequence[Tile], classes: Classes, *, columns: int | None = None, title: str = ""
) -> Path:
    """Draw all tiles in reading order with one legend of the classes; by default in 4 columns, 10 for many.

    Example:
        >>> draw_contact_sheet(Path("sheet.png"), tiles, classes, columns=4, title="The worst cases")  # doctest: +SKIP
    """
    width = WIDE if columns is not None or len(tiles) <= MAX_WIDE_TILES else NARROW
    columns = columns or (4 if len(tiles) <= MAX_WIDE_TILES else 10)
    height = max(one.image.shape[0] * one.row_over_column / one.image.shape[1] for one in tiles)
    figure, grid = panel_grid(len(tiles), columns, (width, width * min(height, 1.5) + 0.25), 0.7)
    for axes, one in zip(grid, tiles, strict=False):
        show_grey(axes, one.image, one.row_over_column)
        if one.labels is not None:
            outline_classes(axes, one.labels, classes, width=1.2)
        mark_sides(axes, one.sides)
        axes.set_title(_short(one.title, int(width * 12)), fontsize=9)
    if any(one.labels is not None for one in tiles):
        named = zip(classes.names[1:], classes.colors[1:], strict=True)
        handles = [Line2D([], [], color=color, linewidth=2, label=name) for name, color in named]
        place = {"loc": "outside lower center", "ncols": min(6, len(handles))}
        figure.legend(handles=handles, frameon=False, fontsize=9, **place)
    return save(figure, path, title)


def _short(name: str, max_letters: int) -> str:
    """Shorten a name from its beginning, because names differ at their ends."""
    return name if len(name) <= max_letters else f"…{name[1 - max_letters :]}"


def draw_cases(
    picture: Path,
    cases: Iterable[tuple[str, Volume, np.ndarray | None]],
    classes: Classes,
    *,
    slice_axis: int,
    title: str,
) -> None:
    """Draw a contact sheet of cases, of at most the first `MAX_CASES`.

    cases: name, volume, and class indices `(X, Y, Z)` or None; read one after the other.

    Example:
        >>> cases = [("case-1", volume, indices)]  # doctest: +SKIP
        >>> draw_cases(Path("cases.png"), cases, classes, slice_axis=2, title="One case")  # doctest: +SKIP
    """
    tiles: list[Tile] = []
    for name, volume, labels in cases:
        if len(tiles) == MAX_CASES:
            title = f"{title}, the first {MAX_CASES} of them"
            break
        view = view_of(volume, slice_axis=slice_axis, oriented=volume.unit == "mm")
        tiles.append(tile(name, volume, view, labels))
    draw_contact_sheet(picture, tiles, classes, title=title)
