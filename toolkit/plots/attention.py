"""Attention maps of the gates: one panel per gate over the image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attunet.classes import Classes
from attunet.plots.figure import new_figure, save, show_grey
from attunet.plots.outlines import mark_sides, outline


def draw_attention(
    path: Path,
    image: np.ndarray,
    maps: Sequence[np.ndarray],
    classes: Classes,
    *,
    labels: np.ndarray | None = None,
    sides: tuple[str, ...] = (),
    title: str = "",
) -> Path:
    """Draw the attention map of every gate over the image, each with its own colour bar from its 2nd to its 98th
    percentile.

    Args:
        path: of the PNG file.
        image: `(H, W)`, the network's input.
        maps: `(h, w)` from 0 to 1, the deepest gate first.
        classes: names and colours.
        labels: `(H, W)`, the network's prediction, drawn as outlines.
        sides: letters for the patient's sides, see `View`.
        title: of the figure.

    Returns:
        The path.

    Example:
        >>> draw_attention("attention.png", image, model.attention(slices), classes)  # doctest: +SKIP
    """
    panels = len(maps) + 1
    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure = new_figure(3.6 * columns, 3.4 * rows + 0.4)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    show_grey(grid[0], image, 1.0)
    grid[0].set_title("input and prediction" if labels is not None else "input", fontsize=10)
    if labels is not None:
        for index, color in enumerate(classes.colors[1:], start=1):
            outline(grid[0], labels == index, color=color)
    for number, (axes, alpha) in enumerate(zip(grid[1:], maps, strict=False), start=1):
        show_grey(axes, image, 1.0)
        low, high = np.percentile(alpha, (2, 98))
        extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
        drawn = axes.imshow(
            alpha,
            cmap="inferno",
            alpha=0.6,
            vmin=low,
            vmax=max(high, low + 1e-3),
            extent=extent,
            interpolation="nearest",
        )
        bar = figure.colorbar(drawn, ax=axes, shrink=0.85, pad=0.02)
        if bar.solids is not None:
            bar.solids.set_alpha(1)
        bar.ax.tick_params(labelsize=8)
        bar.ax.set_title("alpha", fontsize=8)
        where = " (deepest)" if number == 1 else " (finest)" if number == len(maps) else ""
        axes.set_title(f"gate {number}{where}, {alpha.shape[0]} × {alpha.shape[1]}", fontsize=10)
    for axes in grid[:panels]:
        mark_sides(axes, sides)
    if title:
        figure.suptitle(title, fontsize=12)
    return save(figure, path)
