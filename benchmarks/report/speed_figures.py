"""Charts of speed and training: the Pareto front, where the time goes, curves, time to accuracy."""

import math
from collections.abc import Sequence

from attunet.benchmarks.report.chart import SYMBOLS, Figure, chart, plain
from attunet.benchmarks.report.contents import Contents
from attunet.metrics.pareto import pareto_front
from attunet.metrics.results import PARTS

TICK_STEPS = ((1,), (1, 2, 5), (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8))  # from wide ranges to narrow ones


def pareto(contents: Contents) -> Figure | None:
    points = {
        m.label: (m.speed["latency_ms"]["batch"]["1"]["p50"], dice)
        for m in contents.models
        if m.speed and (dice := m.scores["dice"]["mean"]) is not None
    }
    if not points:
        return None
    front = pareto_front(points)
    line = {"dash": "dot", "color": "@text", "width": 1.5}
    dotted = {
        "x": [points[n][0] for n in front],
        "y": [points[n][1] for n in front],
        "line": line,
        "name": "Pareto front",
    }
    data: list[Figure] = [{**dotted, "type": "scatter", "mode": "lines", "hoverinfo": "skip"}]
    for number, model in enumerate(contents.models):
        if model.label not in points:
            continue
        latency, dice = points[model.label]
        where = ", on the Pareto front" if model.label in front else ""
        marker = {"color": f"@{number}", "symbol": SYMBOLS[number % len(SYMBOLS)], "size": 13}
        one: Figure = {
            "x": [latency],
            "y": [dice],
            "marker": marker,
            "name": plain(model.label),
            "type": "scatter",
            "mode": "markers",
        }
        one["hovertemplate"] = f"%{{x:.1f}} ms, Dice %{{y:.3f}}{where}<extra>{plain(model.label)}</extra>"
        data.append(one)
    layout: Figure = {
        "xaxis": {
            "title": {"text": "ms a slice (p50, log)"},
            "type": "log",
            **log_ticks([latency for latency, _ in points.values()]),
        },
        "yaxis": {"title": {"text": "mean Dice"}},
    }
    about = (
        "Up and to the left is better. No other model is both faster and more accurate than one on the dotted front."
    )
    return chart("Accuracy against speed", about, data, layout)


def log_ticks(values: Sequence[float]) -> Figure:
    """Ticks of a logarithmic axis with their whole figures, since plotly writes 30 between 10 and 100 as 3."""
    low, high = 0.8 * min(values), 1.25 * max(values)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    ticks: list[float] = []
    for steps in TICK_STEPS:
        ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(ticks) >= 3:
            break
    return {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def curves(contents: Contents, what: str) -> Figure | None:
    """Loss of training and validation, or the validation's mean Dice, of every run."""
    data: list[Figure] = []
    for number, model in enumerate(contents.models):
        for run, rows in model.curves.items():
            several, first = len(model.curves) > 1, run == next(iter(model.curves))
            for event in ("train", "validation") if what == "loss" else ("validation",):
                chosen = [row for row in rows if row["event"] == event]
                if not chosen:
                    continue
                line = {"color": f"@{number}", "width": 1 if several or event == "train" else 2}
                if what == "loss" and event == "validation":
                    line["dash"] = "dash"
                one = {
                    "x": [row["epoch"] for row in chosen],
                    "y": [row["loss"] if what == "loss" else row["dice"] for row in chosen],
                    "line": line,
                    "name": plain(f"{model.label if several and first else run}, {event}"),
                }
                data.append(
                    {**one, "type": "scatter", "mode": "lines", "opacity": 0.6 if several else 0.9, "showlegend": first}
                )
    if not data:
        return None
    titles = {
        "loss": ("Loss of every run", "loss"),
        "dice": ("Validation of every run", "mean Dice on the training grid"),
    }
    title, axis = titles[what]
    about = (
        "Solid: training, dashed: validation."
        if what == "loss"
        else "Mean Dice of the foreground classes at every validation."
    )
    layout: Figure = {"xaxis": {"title": {"text": "epoch"}}, "yaxis": {"title": {"text": axis}}}
    return chart(title, about, data, layout)


def where_the_time_goes(contents: Contents) -> Figure | None:
    timed = {m.label: m.speed["volume_ms"] for m in contents.models if m.speed}
    if not timed:
        return None
    data: list[Figure] = []
    for number, part in enumerate(PARTS):
        values = [milliseconds.get(part, 0) for milliseconds in timed.values()]
        bar = {"x": values, "y": [plain(label) for label in timed], "name": part, "marker": {"color": f"@{number}"}}
        data.append(
            {**bar, "type": "bar", "orientation": "h", "hovertemplate": f"{part}: %{{x:.0f}} ms<extra></extra>"}
        )
    layout: Figure = {
        "barmode": "stack",
        "xaxis": {"title": {"text": "ms for a volume, file to file"}},
        "yaxis": {"autorange": "reversed", "automargin": True},
    }
    return chart(
        "Where the time goes",
        "Mean over the cases: reading, preparing, the network, finishing the label map, writing.",
        data,
        layout,
    )


def time_to_accuracy(contents: Contents) -> Figure | None:
    data: list[Figure] = []
    for number, model in enumerate(contents.models):
        curve = model.time_to_accuracy
        if curve and curve["minutes"]:
            line = {
                "x": curve["minutes"],
                "y": curve["dice"],
                "name": plain(model.label),
                "line": {"color": f"@{number}", "width": 2},
            }
            data.append(
                {
                    **line,
                    "type": "scatter",
                    "mode": "lines+markers",
                    "marker": {"symbol": SYMBOLS[number % len(SYMBOLS)]},
                }
            )
    if not data:
        return None
    layout: Figure = {
        "xaxis": {"title": {"text": "minutes of training"}},
        "yaxis": {"title": {"text": "mean validation Dice"}},
    }
    return chart(
        "Time to accuracy", "Mean over the runs, validations included, on the machine that they ran on.", data, layout
    )
