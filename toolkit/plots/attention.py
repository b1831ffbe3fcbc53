"""Attention maps of the gates: one panel per gate over the image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attunet.classes import Classes
from attunet.plots.figure import panel_grid, save, show_grey
from attunet.plots.outlines import mark_sides, outline_classes


def draw_attention(
    path: Path,
    image: np.ndarray,
    maps: Sequence[np.ndarray],
    classes: Classes,
    *,
    labels: np.ndarray,
    sides: tuple[str, ...],
    title: str,
) -> Path:
    """Draw every gate's attention map `(h, w)` from 0 to 1, the deepest first, over the network's input `(H, W)` and
    its prediction, `labels`, with a colour bar from its 2nd to its 98th percentile. sides: see `View`.

    Example:
        >>> draw_attention(path, image, maps, classes, labels=labels, sides=view.sides, title="a")  # doctest: +SKIP
    """
    figure, grid = panel_grid(len(maps) + 1, 3, (3.6, 3.4), 0.4)
    show_grey(grid[0], image, 1.0)
    grid[0].set_title("input and prediction", fontsize=10)
    outline_classes(grid[0], labels, classes)
    for number, (axes, alpha) in enumerate(zip(grid[1:], maps, strict=False), start=1):
        show_grey(axes, image, 1.0)
        low, high = np.percentile(alpha, (2, 98))
        extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
        limits = {"vmin": low, "vmax": max(high, low + 1e-3), "extent": extent}
        drawn = axes.imshow(alpha, cmap="inferno", alpha=0.6, interpolation="nearest", **limits)
        bar = figure.colorbar(drawn, ax=axes, shrink=0.85, pad=0.02)
        if bar.solids is not None:
            bar.solids.set_alpha(1)
        bar.ax.tick_params(labelsize=8)
        bar.ax.set_title("alpha", fontsize=8)
        where = " (deepest)" if number == 1 else " (finest)" if number == len(maps) else ""
        axes.set_title(f"gate {number}{where}, {alpha.shape[0]} × {alpha.shape[1]}", fontsize=10)
    for axes in grid[: len(maps) + 1]:
        mark_sides(axes, sides)
    return save(figure, path, title)
