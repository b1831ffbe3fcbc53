"""Truth and predictions as outlines over the image, one panel per organ."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attunet.classes import Classes
from attunet.plots.figure import TRUTH_COLOR, model_color, panel_grid, save, show_grey
from attunet.plots.view import View, largest_slice
from attunet.volumes.volume import Volume

MARGIN_SHARE = 0.35  # margin around an organ as a fraction of its extent


def draw_outlines(
    path: Path,
    volume: Volume,
    view: View,
    predictions: Mapping[str, np.ndarray],
    classes: Classes,
    *,
    truth: np.ndarray,
    title: str,
) -> Path:
    """Draw a panel per foreground class, at the slice where it is largest in the truth or the first prediction: class
    indices `(X, Y, Z)` on the volume's grid, of predictions by the name in the legend.

    Example:
        >>> draw_outlines(path, volume, view, {"unet": indices}, classes, truth=labels, title="a")  # doctest: +SKIP
    """
    image = view.slices(volume.data[0])
    layers = {name: view.slices(indices) for name, indices in {"truth": truth, **predictions}.items()}
    colors = colors_of(layers)
    figure, grid = panel_grid(len(classes.foreground), 4, (3.4, 3.6), 0.7)
    for axes, (index, name) in zip(grid, enumerate(classes.foreground, start=1), strict=False):
        _draw_organ(axes, image, {k: v == index for k, v in layers.items()}, colors, view, name)
    add_legend(figure, colors)
    return save(figure, path, title)


def _draw_organ(
    axes: Axes, image: np.ndarray, masks: dict[str, np.ndarray], colors: dict[str, str], view: View, name: str
) -> None:
    chosen = next((index for mask in masks.values() if (index := largest_slice(mask)) is not None), None)
    if chosen is None:
        axes.set_title(f"{name}\nin no label map", fontsize=10)
        return
    axes.set_axis_on()
    show_grey(axes, image[chosen], view.row_over_column)
    for key, mask in masks.items():
        outline_layer(axes, mask[chosen], key, colors)
    axes.set_title(f"{name}\nslice {chosen + 1} of {len(image)}", fontsize=10)
    zoom_to(axes, np.any([mask[chosen] for mask in masks.values()], axis=0), view.row_over_column)
    mark_sides(axes, view.sides)


def outline_layer(axes: Axes, mask: np.ndarray, key: str, colors: Mapping[str, str]) -> None:
    """Draw the outline of one layer in one slice; "truth" is dashed."""
    _outline(axes, mask, color=colors[key], style=_style(key), width=2.0 if key == "truth" else 1.3)


def _outline(axes: Axes, mask: np.ndarray, *, color: str, style: str, width: float) -> None:
    """Draw the border of a mask `(rows, columns)` between the pixels; nothing for an empty mask."""
    if mask.any():
        padded = np.pad(mask, 1).astype(float)  # closes outlines at the edge of the image
        rows, columns = (np.arange(-1, n + 1) for n in mask.shape)
        axes.contour(columns, rows, padded, levels=[0.5], colors=[color], linestyles=[style], linewidths=[width])


def outline_classes(axes: Axes, labels: np.ndarray, classes: Classes, *, width: float = 1.3) -> None:
    """Draw the borders of the foreground classes in class indices `(rows, columns)`, in the classes' colours."""
    for index, color in enumerate(classes.colors[1:], start=1):
        _outline(axes, labels == index, color=color, style="solid", width=width)


def mark_sides(axes: Axes, sides: tuple[str, ...]) -> None:
    """Write the letters of the patient's sides at the left and the top of a panel."""
    if sides:
        write = partial(axes.text, color="white", fontsize=9, fontweight="bold", transform=axes.transAxes)
        write(0.02, 0.5, sides[0], ha="left", va="center")
        write(0.5, 0.98, sides[2], ha="center", va="top")


def zoom_to(axes: Axes, mask: np.ndarray, row_over_column: float) -> None:
    """Limit the panel to the mask with a margin, square in mm."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height = (rows[-1] - rows[0] + 1) * row_over_column
    side = max(height, columns[-1] - columns[0] + 1, 0.15 * mask.shape[1]) * (1 + 2 * MARGIN_SHARE) / 2
    middle_row, middle_column = (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2
    axes.set_xlim(middle_column - side, middle_column + side)
    axes.set_ylim(middle_row + side / row_over_column, middle_row - side / row_over_column)
    axes.set_facecolor("black")


def colors_of(layers: Iterable[str]) -> dict[str, str]:
    """The colour of each layer's outline, in the order of the layers; "truth" has its own."""
    models = [k for k in layers if k != "truth"]
    own = {k: model_color(i) for i, k in enumerate(models)}
    return {k: own.get(k, TRUTH_COLOR) for k in layers}


def add_legend(figure: Figure, colors: Mapping[str, str]) -> None:
    handles = [
        Line2D([], [], color="#777777" if color == TRUTH_COLOR else color, linestyle=_style(k), linewidth=2, label=k)
        for k, color in colors.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False, fontsize=10)


def _style(key: str) -> str:
    return "dashed" if key == "truth" else "solid"
