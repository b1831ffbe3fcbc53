"""The charts of a report as plotly's JSON. Colours are `@N`, the page's own for light and dark; `@text` and `@grid` are the page's."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attunet.benchmarks.report.contents import Contents, ModelRow, twins_of
from attunet.metrics.pareto import pareto_front

Figure = dict[str, Any]
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star", "x", "pentagon")
PARTS = ("read", "prepare", "network", "finish", "write")
SPREAD = 0.12  # half the width over which the cases of one model are spread


def figures(contents: Contents) -> dict[str, Figure]:
    """Name of the chart -> `title`, `about`, and `data` and `layout` for plotly; charts without data are left out."""
    makers: Mapping[str, Callable[[Contents], Figure | None]] = {
        "per-case": _per_case,
        "per-organ": _per_organ,
        "pareto": _pareto,
        "time": _where_the_time_goes,
        "accuracy-time": _time_to_accuracy,
        "loss": lambda c: _curves(c, "loss"),
        "validation": lambda c: _curves(c, "dice"),
    }
    made = {name: make(contents) for name, make in makers.items()}
    charts = {name: chart for name, chart in made.items() if chart is not None}
    twins = twins_of(contents)
    for number, model in enumerate(contents.models):
        if model.confusion is not None and model.confusion.any() and model.label not in twins:
            charts[f"confusion-{number}"] = _confusion(model, contents.classes.names)
    return charts


def _per_case(contents: Contents) -> Figure | None:
    """A column of points per model, the points of one case joined; the mean with its interval beside them."""
    data: list[Figure] = []
    places = _places(contents)
    for case in contents.cases:
        known = [n for n, m in enumerate(contents.models) if not math.isnan(m.case_mean(case))]
        line = {
            "x": [n + places[case] for n in known],
            "y": [contents.models[n].case_mean(case) for n in known],
            "line": {"color": "@grid", "width": 1},
        }
        data.append({**line, "type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False})
    for number, model in enumerate(contents.models):
        cases = [case for case in contents.cases if not math.isnan(model.case_mean(case))]
        x, y = [number + places[case] for case in cases], [model.case_mean(case) for case in cases]
        points: Figure = {"x": x, "y": y, "customdata": cases}
        hover = "%{customdata}: %{y:.3f}<extra></extra>"
        marker = {"color": f"@{number}", "symbol": SYMBOLS[number % len(SYMBOLS)], "size": 8, "opacity": 0.85}
        data.append(
            {
                **points,
                "type": "scatter",
                "mode": "markers",
                "marker": marker,
                "hovertemplate": hover,
                "name": model.label,
                "showlegend": False,
            }
        )
        data.append(_mean_mark(model, number + 0.3))
    if not contents.cases:
        return None
    ticks = {"tickvals": list(range(len(contents.models))), "ticktext": [_wrapped(m.label) for m in contents.models]}
    layout = {"xaxis": {**ticks, "range": [-0.5, len(contents.models) - 0.5]}, "yaxis": {"title": {"text": "mean Dice of a case"}}}
    about = (
        "A point is a case, a grey line joins the same case in all models; beside them the mean with its 95 % interval. "
        "A click opens the case."
    )
    return _figure("Every case", about, data, layout)


def _mean_mark(model: ModelRow, x: float) -> Figure:
    dice = model.scores["dice"]
    mark: Figure = {
        **{"type": "scatter", "mode": "markers", "x": [x], "y": [dice["mean"]], "showlegend": False, "name": model.label},
        **{"marker": {"color": "@text", "symbol": "line-ew-open", "size": 14, "line": {"width": 3}}},
        "hovertemplate": "mean %{y:.3f}<extra></extra>",
    }
    if dice["ci95"]:
        low, high = dice["ci95"]
        above, below = [high - dice["mean"]], [dice["mean"] - low]
        mark["error_y"] = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "color": "@text", "thickness": 1.5}
    return mark


def _places(contents: Contents) -> dict[str, float]:
    """Horizontal position of a case in the column of its model."""
    last = max(1, len(contents.cases) - 1)
    return {case: SPREAD * (2 * n / last - 1) for n, case in enumerate(contents.cases)}


def _per_organ(contents: Contents) -> Figure | None:
    data: list[Figure] = []
    width = 0.7 / max(1, len(contents.models))
    for number, model in enumerate(contents.models):
        points: list[tuple[float, float, str]] = []
        means: list[float | None] = []
        offset = (number - (len(contents.models) - 1) / 2) * width
        for place, name in enumerate(contents.classes.foreground):
            means.append(model.scores["dice"]["per_class"].get(name))
            for case in contents.cases:
                value = model.scores["dice"]["per_case"].get(case, {}).get(name)
                if value is not None:
                    points.append((place + offset, value, case))
        marker = {"color": f"@{number}", "symbol": SYMBOLS[number % len(SYMBOLS)], "size": 7, "opacity": 0.7}
        hover = "%{customdata}: %{y:.3f}<extra>" + model.label + "</extra>"
        x, y, cases = ([point[n] for point in points] for n in range(3))
        one = {"x": x, "y": y, "customdata": cases, "marker": marker, "name": model.label, "hovertemplate": hover}
        data.append({**one, "type": "scatter", "mode": "markers"})
        line = {"color": f"@{number}", "symbol": "line-ew-open", "size": 16, "line": {"width": 3}}
        mean = {"x": [p + offset for p in range(len(means))], "y": means, "marker": line, "showlegend": False}
        data.append({**mean, "type": "scatter", "mode": "markers", "name": model.label, "hovertemplate": "mean %{y:.3f}<extra></extra>"})
    ticks = {"tickvals": list(range(len(contents.classes.foreground))), "ticktext": list(contents.classes.foreground)}
    layout = {"xaxis": ticks, "yaxis": {"title": {"text": "Dice"}}}
    return _figure("Every class", "A point is a case, a bar the mean of the model. A click opens the case.", data, layout)


def _pareto(contents: Contents) -> Figure | None:
    timed = {m.label: m for m in contents.models if m.speed and m.scores["dice"]["mean"] is not None}
    if not timed:
        return None
    points = {label: (m.speed["latency_ms"]["batch"]["1"]["p50"], m.scores["dice"]["mean"]) for label, m in timed.items()}
    front = pareto_front(points)
    line = {"dash": "dot", "color": "@text", "width": 1.5}
    dotted = {"x": [points[n][0] for n in front], "y": [points[n][1] for n in front], "line": line, "name": "Pareto front"}
    data: list[Figure] = [{**dotted, "type": "scatter", "mode": "lines", "hoverinfo": "skip"}]
    for number, model in enumerate(contents.models):
        if model.label not in points:
            continue
        latency, dice = points[model.label]
        where = ", on the Pareto front" if model.label in front else ""
        marker = {"color": f"@{number}", "symbol": SYMBOLS[number % len(SYMBOLS)], "size": 13}
        one: Figure = {"x": [latency], "y": [dice], "marker": marker, "name": model.label, "type": "scatter", "mode": "markers"}
        one["hovertemplate"] = f"%{{x:.1f}} ms, Dice %{{y:.3f}}{where}<extra>{model.label}</extra>"
        data.append(one)
    layout = {
        "xaxis": {"title": {"text": "ms a slice (p50, log)"}, "type": "log", "dtick": "D1"},
        "yaxis": {"title": {"text": "mean Dice"}},
    }
    about = "Up and to the left is better. No other model is both faster and more accurate than one on the dotted front."
    return _figure("Accuracy against speed", about, data, layout)


def _curves(contents: Contents, what: str) -> Figure | None:
    """Loss of training and validation, or the validation's mean Dice, of every run."""
    data: list[Figure] = []
    for number, model in enumerate(contents.models):
        for run, rows in model.curves.items():
            several = len(model.curves) > 1
            for event in ("train", "validation") if what == "loss" else ("validation",):
                chosen = [row for row in rows if row["event"] == event]
                if not chosen:
                    continue
                line = {"color": f"@{number}", "width": 1 if several or event == "train" else 2}
                if what == "loss" and event == "validation":
                    line["dash"] = "dash"
                one = {"x": [row["epoch"] for row in chosen], "y": [row[what] for row in chosen], "line": line, "name": f"{run}, {event}"}
                first = run == next(iter(model.curves))
                data.append({**one, "type": "scatter", "mode": "lines", "opacity": 0.6 if several else 0.9, "showlegend": first})
    if not data:
        return None
    titles = {"loss": ("Loss of every run", "loss"), "dice": ("Validation of every run", "mean Dice on the training grid")}
    title, axis = titles[what]
    about = "Solid: training, dashed: validation." if what == "loss" else "Mean Dice of the foreground classes at every validation."
    layout = {"xaxis": {"title": {"text": "epoch"}}, "yaxis": {"title": {"text": axis}}}
    return _figure(title, about, data, layout)


def _confusion(model: ModelRow, names: Sequence[str]) -> Figure:
    assert model.confusion is not None
    rows = model.confusion / model.confusion.sum(axis=1, keepdims=True).clip(min=1)
    text = [[f"{100 * v:.1f}" for v in row] for row in rows]
    heat = {
        **{"type": "heatmap", "z": rows.tolist(), "x": list(names), "y": list(names), "text": text, "texttemplate": "%{text}"},
        **{"colorscale": "Cividis", "zmin": 0, "zmax": 1, "showscale": False, "customdata": model.confusion.tolist()},
        "hovertemplate": "truth %{y}, predicted %{x}: %{customdata:,} voxels<extra></extra>",
    }
    layout = {
        "yaxis": {"autorange": "reversed", "title": {"text": "truth"}},
        "xaxis": {"title": {"text": "predicted"}, "side": "bottom"},
    }
    return _figure(f"Confusion of {model.label}", "Percent of the voxels of a class (row) that got each label (column).", [heat], layout)


def _where_the_time_goes(contents: Contents) -> Figure | None:
    timed = [m for m in contents.models if m.speed]
    if not timed:
        return None
    data = []
    for number, part in enumerate(PARTS):
        values = [m.speed["volume_ms"].get(part, 0) for m in timed]
        bar = {"x": values, "y": [m.label for m in timed], "name": part, "marker": {"color": f"@{number}"}}
        data.append({**bar, "type": "bar", "orientation": "h", "hovertemplate": f"{part}: %{{x:.0f}} ms<extra></extra>"})
    layout = {
        "barmode": "stack",
        "xaxis": {"title": {"text": "ms for a volume, file to file"}},
        "yaxis": {"autorange": "reversed", "automargin": True},
    }
    return _figure(
        "Where the time goes", "Mean over the cases: reading, preparing, the network, finishing the label map, writing.", data, layout
    )


def _time_to_accuracy(contents: Contents) -> Figure | None:
    data: list[Figure] = []
    for number, model in enumerate(contents.models):
        curve = model.time_to_accuracy
        if curve and curve["minutes"]:
            line = {"x": curve["minutes"], "y": curve["dice"], "name": model.label, "line": {"color": f"@{number}", "width": 2}}
            data.append({**line, "type": "scatter", "mode": "lines+markers", "marker": {"symbol": SYMBOLS[number % len(SYMBOLS)]}})
    if not data:
        return None
    layout = {"xaxis": {"title": {"text": "minutes of training"}}, "yaxis": {"title": {"text": "mean validation Dice"}}}
    return _figure("Time to accuracy", "Mean over the runs, validations included, on the machine that they ran on.", data, layout)


def _figure(title: str, about: str, data: list[Figure], layout: Figure) -> Figure:
    return {"title": title, "about": about, "data": data, "layout": layout}


def _wrapped(label: str) -> str:
    """A model's label on two lines."""
    return label.replace(" (", "<br>(")
