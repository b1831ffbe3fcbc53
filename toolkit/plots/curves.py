"""Loss and validation Dice of several runs in one figure."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from attunet.metrics.results import MetricsRow
from attunet.plots.figure import model_color, new_figure, save

Rows = Sequence[MetricsRow]


def draw_curves(path: Path, runs: Mapping[str, Rows], *, title: str = "") -> Path:
    """Draw the losses of runs on the left, and mean Dice on the cases left out on the right, from metrics.jsonl."""
    figure = new_figure(10, 4.4)
    losses, dice = figure.subplots(1, 2)
    for index, (name, rows) in enumerate(runs.items()):
        color = model_color(index)
        epochs, train = _series(rows, "train", lambda row: row["loss"])
        losses.plot(epochs, train, color=color, alpha=0.25, linewidth=0.8)
        losses.plot(epochs, _smoothed(train), color=color, linewidth=1.6, label=f"{name}, training")
        epochs, validation = _series(rows, "validation", lambda row: row["loss"])
        dashes = {"color": color, "linestyle": "dashed", "marker": "o", "markersize": 3.5}
        losses.plot(epochs, validation, label=f"{name}, validation", **dashes)
        epochs, means = _series(rows, "validation", lambda row: row["dice"]["mean"])
        last = f"{name}: {means[-1]:.3f} at the end" if len(means) and np.isfinite(means[-1]) else name
        dice.plot(epochs, means, color=color, marker="o", markersize=3.5, label=last)
    panels = (losses, "loss", "upper right"), (dice, "mean Dice of the foreground, validation", "lower right")
    for axes, label, place in panels:
        axes.set(xlabel="epoch", ylabel=label)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=9, loc=place)
    dice.set_ylim(0, 1)
    return save(figure, path, title)


def _series(rows: Rows, event: str, value: Callable[[MetricsRow], float | None]) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values of one kind of line; a missing or null value becomes a gap."""
    chosen = [row for row in rows if row.get("event") == event]
    values = [np.nan if (v := value(row)) is None else v for row in chosen]
    return np.array([row["epoch"] for row in chosen]), np.array(values, dtype=float)


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Running mean over a twentieth of the points, shorter at both ends."""
    reach = max(1, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    starts = np.maximum(np.arange(len(values)) - reach, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
