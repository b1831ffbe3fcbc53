"""Charts of speed and training: the Pareto front, where the time goes, curves, time to accuracy."""

import math
from collections.abc import Sequence
from typing import Literal

from attunet.benchmarks.report.chart import Figure, axis, chart, plain, symbol_of, trace
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
    x, y = [points[name][0] for name in front], [points[name][1] for name in front]
    line = {"dash": "dot", "color": "@text", "width": 1.5}
    data = [trace("lines", x, y, line=line, name="Pareto front", hoverinfo="skip")]
    for number, model in enumerate(contents.models):
        if model.label not in points:
            continue
        (latency, dice), name = points[model.label], plain(model.label)
        where = ", on the Pareto front" if model.label in front else ""
        marker = {"color": f"@{number}", "symbol": symbol_of(number), "size": 13}
        hover = f"%{{x:.1f}} ms, Dice %{{y:.3f}}{where}<extra>%{{fullData.name}}</extra>"
        data.append(trace("markers", [latency], [dice], marker=marker, name=name, hovertemplate=hover))
    ticks = log_ticks([latency for latency, _ in points.values()])
    layout: Figure = {"xaxis": axis("ms a slice (p50, log)", type="log", **ticks), "yaxis": axis("mean Dice")}
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
        if len(ticks) < 3:
            ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
    return {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def curves(contents: Contents, what: Literal["loss", "dice"]) -> Figure | None:
    """Loss of training and validation, or the validation's mean Dice, of every run."""
    is_loss = what == "loss"
    data: list[Figure] = []
    for number, model in enumerate(contents.models):
        several = len(model.curves) > 1
        for index, (run, rows) in enumerate(model.curves.items()):
            for event in ("train", "validation") if is_loss else ("validation",):
                chosen = [row for row in rows if row["event"] == event]
                if not chosen:
                    continue
                line: Figure = {"color": f"@{number}", "width": 1 if several or event == "train" else 2}
                if is_loss and event == "validation":
                    line["dash"] = "dash"
                data.append(
                    trace(
                        "lines",
                        [row["epoch"] for row in chosen],
                        [row["loss"] if is_loss else row["dice"] for row in chosen],
                        line=line,
                        name=plain(f"{model.label if several and index == 0 else run}, {event}"),
                        opacity=0.6 if several else 0.9,
                        showlegend=index == 0,
                    )
                )
    if not data:
        return None
    if is_loss:
        title, about, y = "Loss of every run", "Solid: training, dashed: validation.", "loss"
    else:
        title, y = "Validation of every run", "mean Dice on the training grid"
        about = "Mean Dice of the foreground classes at every validation."
    return chart(title, about, data, {"xaxis": axis("epoch"), "yaxis": axis(y)})


def where_the_time_goes(contents: Contents) -> Figure | None:
    timed = {plain(m.label): m.speed["volume_ms"] for m in contents.models if m.speed}
    if not timed:
        return None
    data: list[Figure] = [
        {
            "type": "bar",
            "orientation": "h",
            "x": [milliseconds.get(part, 0) for milliseconds in timed.values()],
            "y": list(timed),
            "name": part,
            "marker": {"color": f"@{number}"},
            "hovertemplate": f"{part}: %{{x:.0f}} ms<extra></extra>",
        }
        for number, part in enumerate(PARTS)
    ]
    layout: Figure = {
        "barmode": "stack",
        "xaxis": axis("ms for a volume, file to file"),
        "yaxis": {"type": "category", "autorange": "reversed", "automargin": True},
    }
    about = "Mean over the cases: reading, preparing, the network, finishing the label map, writing."
    return chart("Parts of the time", about, data, layout)


def time_to_accuracy(contents: Contents) -> Figure | None:
    data = [
        trace(
            "lines+markers",
            curve["minutes"],
            curve["dice"],
            name=plain(model.label),
            line={"color": f"@{number}", "width": 2},
            marker={"symbol": symbol_of(number)},
        )
        for number, model in enumerate(contents.models)
        if (curve := model.time_to_accuracy) and curve["minutes"]
    ]
    if not data:
        return None
    about = "Mean over the runs, validations included, on the machine that they ran on."
    layout: Figure = {"xaxis": axis("minutes of training"), "yaxis": axis("mean validation Dice")}
    return chart("Time to accuracy", about, data, layout)
