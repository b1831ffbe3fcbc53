"""The confusion matrix of classes as a picture."""

from pathlib import Path

import numpy as np

from attunet.classes import Classes
from attunet.plots.figure import new_figure, save
from attunet.system.plain_text import printable

MAX_WRITTEN = 20  # classes; the cells of more are small and hold no figures


def draw_confusion(path: Path, counts: np.ndarray, classes: Classes, *, title: str = "") -> Path:
    """Draw a confusion matrix `(K, K)`, rows the truth, in percent of each row; a row without voxels stays empty."""
    counts = np.asarray(counts, dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    percent = np.where(totals > 0, 100 * counts / np.maximum(totals, 1), np.nan)
    is_written = len(classes) <= MAX_WRITTEN
    side = 2.4 + (0.85 if is_written else 0.2) * len(classes)
    figure = new_figure(side + 0.9, side)
    axes = figure.subplots()
    drawn = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(percent):
        if is_written and not np.isnan(value):
            color = "white" if value > 55 else "black"
            text = "0" if value == 0 else "<0.1" if value < 0.1 else f"{value:.1f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=10, color=color)
    ticks = range(len(classes))
    names = [printable(name) for name in classes.names]
    axes.set_xticks(ticks, labels=names, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, labels=names)
    axes.set(xlabel="predicted", ylabel="truth")
    figure.colorbar(drawn, ax=axes, label="% of the true voxels", shrink=0.8)
    if title:
        axes.set_title(title, fontsize=11)
    return save(figure, path)
