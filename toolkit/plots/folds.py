"""Pictures of a cross-validation: every case, every patient's difference, Dice against minutes of training."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from attunet.metrics.results import MethodComparison, MethodRow, TimeToAccuracy
from attunet.plots.figure import model_color, new_figure, save
from attunet.system.plain_text import printable

MAX_COLOURED = 8  # more cases share one colour
TARGETS = (0.86, 0.88, 0.90)  # of Dice, in the picture of time


def draw_cases(path: Path, rows: Sequence[MethodRow]) -> Path:
    """A panel for the mean Dice and one per class; a case has one colour. rows: of results.json, with finished runs.

    Small points are single seeds (in the first panel), large ones the mean over the seeds, bars the mean over the
    cases.
    """
    classes = list(rows[0]["scores"]["dice"]["per_class"])
    panels = [None, *classes]  # None: their mean
    cases = sorted({case for row in rows for case in row["scores"]["dice"]["per_case"]})
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = new_figure(max(3.3, 1.6 + 0.6 * len(rows)) * columns, 3.4 * lines + 0.5 + 0.25 * len(rows))
    grid = np.atleast_1d(figure.subplots(lines, columns, sharey=True)).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        for index, case in enumerate(cases):
            _draw_case(axes, rows, case, panel, model_color(index) if len(cases) <= MAX_COLOURED else "#56B4E9")
        for place, row in enumerate(rows):
            scores = row["scores"]["dice"]
            mean = scores["mean"] if panel is None else scores["per_class"][panel]
            if mean is not None:
                axes.plot([place - 0.3, place + 0.3], [mean, mean], color="black", linewidth=2, zorder=4)
        axes.set_title("mean of the classes" if panel is None else panel, fontsize=10)
        axes.set_xticks(range(len(rows)), labels=[str(i + 1) for i in range(len(rows))])
        axes.set_xlim(-0.6, len(rows) - 0.4)
        axes.grid(alpha=0.3)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[::columns]:
        axes.set_ylabel("Dice")
    handles = grid[0].get_legend_handles_labels() if len(cases) <= MAX_COLOURED else ([], [])
    if handles[0]:
        figure.legend(*handles, loc="outside right upper", fontsize=8, frameon=False)
    names = "\n".join(f"{i + 1}  {row['name']}: {_words(row)}" for i, row in enumerate(rows))
    figure.supxlabel(names, fontsize=9, x=0.02, ha="left")
    return save(figure, path)


def _draw_case(axes: Axes, rows: Sequence[MethodRow], case: str, panel: str | None, color: str) -> None:
    dice = [row["scores"]["dice"] for row in rows]
    if panel is None:
        values = [scores["per_case_mean"].get(case) for scores in dice]
    else:
        values = [scores["per_case"].get(case, {}).get(panel) for scores in dice]
    means = np.array([np.nan if v is None else v for v in values], dtype=float)
    for start, stop in _alike(rows):  # points of one recipe are joined
        label = case if start == 0 else None
        places = range(start, stop)
        axes.plot(places, means[start:stop], "o-", label=label, color=color, ms=5.5, lw=0.8, alpha=0.85, zorder=3)
    if panel is not None:
        return
    for place, row in enumerate(rows):
        by_seed = row["scores"]["dice"]["per_seed_case"]
        seeds = [value for cases in by_seed.values() if (value := cases.get(case)) is not None]
        if len(by_seed) > 1:
            axes.plot(np.full(len(seeds), place + 0.13), seeds, ".", color=color, markersize=4, alpha=0.7)


def _alike(rows: Sequence[MethodRow]) -> list[tuple[int, int]]:
    """First and last index of each run of neighbours with one recipe and one treatment, if there are several."""
    kinds = itertools.groupby(range(len(rows)), lambda i: (rows[i]["recipe"], rows[i]["postprocessing"]))
    groups = [list(group) for _, group in kinds]
    if len(groups) == len(rows):
        return [(0, len(rows))]
    return [(group[0], group[-1] + 1) for group in groups]


def _words(row: MethodRow) -> str:
    dice = row["scores"]["dice"]
    span = "" if dice["ci95"] is None else f" ({dice['ci95'][0]:.3f} to {dice['ci95'][1]:.3f})"
    return "no class" if dice["mean"] is None else f"{dice['mean']:.3f}{span}"


def draw_differences(path: Path, comparisons: Sequence[MethodComparison]) -> Path:
    """A row per comparison: every patient's difference in Dice, their mean, and its 95 % interval as a bar."""
    figure = new_figure(8.5, 1.3 + 0.62 * len(comparisons))
    axes = figure.subplots()
    axes.axvline(0, color="#777777", linewidth=1)
    for place, comparison in enumerate(comparisons):
        dice, color = comparison["dice"], model_color(place)
        points = list(dice["per_patient"].values())
        spread = place + (np.linspace(-0.22, 0.22, len(points)) if len(points) > 1 else np.zeros(len(points)))
        axes.plot(points, spread, color=color, marker="o", markersize=5, linestyle="none", alpha=0.8)
        if dice["ci95"]:
            axes.plot(dice["ci95"], [place, place], color="black", linewidth=2.2, solid_capstyle="butt")
        if dice["mean"] is not None:
            axes.plot([dice["mean"]], [place], color="black", marker="D", markersize=6)
    names = [printable(f"{c['second']}\n− {c['first']}") for c in comparisons]
    axes.set_yticks(range(len(comparisons)), labels=names, fontsize=8)
    axes.set_ylim(len(comparisons) - 0.5, -0.5)
    axes.margins(x=0.08)
    axes.set_xlabel("difference in mean Dice: patients, their mean, its 95 % interval")
    axes.grid(alpha=0.3, axis="x")
    return save(figure, path)


def draw_time_to_accuracy(path: Path, curves: Mapping[str, TimeToAccuracy]) -> Path:
    """Dice against minutes of training. curves: by name, means over the runs at each validation."""
    figure = new_figure(7.4, 4.2 + 0.22 * len(curves))
    axes = figure.subplots()
    for index, (name, curve) in enumerate(curves.items()):
        if curve["minutes"]:
            axes.plot(curve["minutes"], curve["dice"], color=model_color(index), marker="o", markersize=4, label=name)
    for target in TARGETS:
        axes.axhline(target, color="#999999", linestyle="dotted", linewidth=1)
        axes.text(0, target, f"{target:.2f}", fontsize=8, color="#666666", va="bottom")
    axes.set_xlim(left=0)
    axes.set_ylim(top=1)
    axes.set_xlabel("minutes of training, validations included")
    axes.set_ylabel("mean Dice on the cases left out, training grid")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=9, frameon=False)
    return save(figure, path)
