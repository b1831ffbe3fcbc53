"""Pictures of accuracy against speed, latency against batch size, and the stages of a volume, from results.json."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from attunet.metrics.pareto import pareto_front
from attunet.metrics.results import PARTS, EvaluatedRow, Part
from attunet.plots.figure import model_color, new_figure, save
from attunet.system.plain_text import printable

Rows = Mapping[str, EvaluatedRow]  # by the name in the legend
MARKERS = "osD^vP*X"
MIN_DICE_RANGE = 0.04  # of the axis: smaller differences mean nothing and must not fill the picture
PART_COLORS: dict[Part, str] = dict(zip(PARTS, ("#999999", "#56B4E9", "#E69F00", "#009E73", "#CC79A7"), strict=True))


def draw_dice_against_latency(path: Path, models: Rows) -> Path:
    """Mean Dice, with its interval, against the median latency of a slice; models on the Pareto front are joined."""
    points = {
        name: (row["latency_ms"]["batch"]["1"]["p50"], dice)
        for name, row in models.items()
        if (dice := row["dice"]["mean"]) is not None
    }
    figure = new_figure(7.4, 4.2 + 0.22 * len(points))
    axes = figure.subplots()
    front = pareto_front(points)
    if front:
        joined = zip(*(points[name] for name in front), strict=True)
        axes.plot(*joined, color="#777777", linestyle="dotted", linewidth=1.2)
    for index, (name, (latency, dice)) in enumerate(points.items()):
        interval = models[name]["dice"]["ci95"]
        if interval:
            axes.plot([latency, latency], interval, color=model_color(index), linewidth=1, alpha=0.7)
        on_front = ", on the front" if name in front else ""
        label = f"{name}: {dice:.3f}, {latency:.1f} ms{on_front}"
        color, marker = model_color(index), MARKERS[index % len(MARKERS)]
        axes.plot([latency], [dice], marker, ms=9, alpha=0.9, label=label, color=color, mec="black", mew=0.6)
    axes.margins(0.15)
    _plain_log(axes, "x")
    low, high = axes.get_ylim()
    missing = max(0.0, MIN_DICE_RANGE - (high - low))
    axes.set_ylim(low - missing / 2, high + missing / 2)
    axes.set(xlabel="latency of one slice, ms (p50, log)", ylabel="mean Dice")
    axes.grid(alpha=0.3)
    if points:
        figure.legend(loc="outside lower center", fontsize=9, frameon=False)
    return save(figure, path)


def draw_latency_against_batch(path: Path, models: Rows) -> Path:
    """Median latency with whiskers to p95, and throughput, at every batch size that was measured."""
    figure = new_figure(10, 4 + 0.22 * len(models))
    latency, throughput = figure.subplots(1, 2)
    sizes: set[int] = set()
    for index, (name, row) in enumerate(models.items()):
        batches = {int(size): figures for size, figures in row["latency_ms"]["batch"].items()}
        sizes |= set(batches)
        p50, p95 = ([batches[size][p] for size in sorted(batches)] for p in ("p50", "p95"))
        color, line = model_color(index), f"{MARKERS[index % len(MARKERS)]}-"
        to_p95 = [[0.0] * len(p50), [high - low for low, high in zip(p50, p95, strict=True)]]
        style = {"ms": 6, "capsize": 3, "elinewidth": 0.8, "color": color}
        latency.errorbar(sorted(batches), p50, yerr=to_p95, fmt=line, label=name, **style)
        rates = {int(size): rate for size, rate in row["throughput_slices_per_s"]["batch"].items()}
        throughput.plot(sorted(rates), [rates[size] for size in sorted(rates)], line, ms=6, color=color)
    for axes, label in ((latency, "latency of a batch, ms (p50, whiskers to p95)"), (throughput, "slices per second")):
        axes.set(xlabel="batch size", ylabel=label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(sizes), labels=[str(size) for size in sorted(sizes)])
        axes.grid(alpha=0.3)
    _plain_log(latency, "y")
    throughput.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", fontsize=9, frameon=False)
    return save(figure, path)


def draw_volume_time(path: Path, models: Rows) -> Path:
    """Time of the stages of one volume, from file to file, as one stacked bar per model."""
    figure = new_figure(9, 1.6 + 0.5 * len(models))
    axes = figure.subplots()
    names = list(models)
    labels = [printable(name) for name in names]
    left = [0.0] * len(names)
    for part, color in PART_COLORS.items():
        widths = [models[name]["volume_ms"][part] for name in names]
        axes.barh(range(len(names)), widths, left=left, color=color, label=part, height=0.65, tick_label=labels)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for index, total in enumerate(left):
        axes.text(total, index, f" {total:.0f} ms", va="center", fontsize=9)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.12 * max(left)), xlabel="ms for a volume from file to file, mean over the cases")
    axes.tick_params(axis="y", labelsize=9)
    figure.legend(loc="outside upper center", ncols=len(PART_COLORS), fontsize=9, frameon=False)
    return save(figure, path)


def _plain_log(axes: Axes, which: str) -> None:
    """A logarithmic axis that is labelled 10, 20, 50 and so on instead of with powers of ten."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axis.get_view_interval()
    subs = (1, 1.5, 2, 3, 4, 5, 7) if high < 10 * low else (1, 2, 5)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
