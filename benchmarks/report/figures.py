"""The charts of a report: every case, every class, what is taken for what, and those of speed and training."""

import math
from collections.abc import Callable, Mapping, Sequence

from attunet.benchmarks.report.chart import Figure, axis, chart, plain, symbol_of, trace
from attunet.benchmarks.report.contents import Contents, ModelRow
from attunet.benchmarks.report.speed_figures import curves, pareto, time_to_accuracy, where_the_time_goes

SPREAD = 0.12  # half the width over which the cases of one model are spread


def figures(contents: Contents) -> dict[str, Figure]:
    """Name of the chart -> `title`, `about`, and `data` and `layout` for plotly; charts without data are left out."""
    makers: Mapping[str, Callable[[Contents], Figure | None]] = {
        "per-case": _per_case,
        "per-organ": _per_organ,
        "pareto": pareto,
        "time": where_the_time_goes,
        "accuracy-time": time_to_accuracy,
        "loss": lambda c: curves(c, "loss"),
        "validation": lambda c: curves(c, "dice"),
    }
    charts = {name: one for name, make in makers.items() if (one := make(contents)) is not None}
    for number, model in enumerate(contents.models):
        if model.confusion is not None and model.confusion.any() and model.label not in contents.twins:
            charts[f"confusion-{number}"] = _confusion(model, contents.classes.names)
    return charts


def _per_case(contents: Contents) -> Figure | None:
    """A column of points per model, the points of one case joined; the mean with its interval beside them."""
    if not contents.cases:
        return None
    models = contents.models
    last = max(1, len(contents.cases) - 1)
    places = {case: SPREAD * (2 * n / last - 1) for n, case in enumerate(contents.cases)}  # in a model's column
    joined = {"line": {"color": "@text", "width": 1}, "opacity": 0.4, "hoverinfo": "skip", "showlegend": False}
    data: list[Figure] = []
    for case in contents.cases:
        points = [(n + places[case], m.case_mean(case)) for n, m in enumerate(models)]
        known = [(x, y) for x, y in points if not math.isnan(y)]
        data.append(trace("lines", [x for x, _ in known], [y for _, y in known], **joined))
    for number, model in enumerate(models):
        of_cases = [(number + places[case], model.case_mean(case), case) for case in contents.cases]
        shown = [point for point in of_cases if not math.isnan(point[1])]
        hover = {"hovertemplate": "%{text}: %{y:.3f}<extra></extra>", "showlegend": False}
        data += [_case_points(model, number, shown, 8, 0.85, **hover), _mean_of_cases(model, number + 0.3)]
    labels = [plain(model.label).replace(" (", "<br>(") for model in models]  # on two lines
    layout: Figure = {
        "xaxis": {"tickvals": list(range(len(models))), "ticktext": labels, "range": [-0.5, len(models) - 0.5]},
        "yaxis": axis("mean Dice of a case"),
    }
    about = (
        "A point is a case, a grey line joins the same case in all models; beside them the mean with its 95 % "
        f"interval. A click opens the case.{_seen_note(contents)}"
    )
    return chart("Every case", about, data, layout)


def _case_points(
    model: ModelRow, number: int, points: Sequence[tuple[float, float, str]], size: int, opacity: float, **more: object
) -> Figure:
    """Points (x, y, case) that lead to their cases, hollow where the model was trained on the case."""
    symbol, cases = symbol_of(number), [case for _, _, case in points]
    symbols = [f"{symbol}-open" if case in model.seen else symbol for case in cases]
    marker = {"color": f"@{number}", "symbol": symbols, "size": size, "opacity": opacity}
    about = {"customdata": cases, "text": [plain(case) for case in cases], "name": plain(model.label), "marker": marker}
    return trace("markers", [x for x, _, _ in points], [y for _, y, _ in points], **about, **more)


def _seen_note(contents: Contents) -> str:
    seen = any(model.seen for model in contents.models)
    return " Hollow points were seen in training and are in no mean." if seen else ""


def _means(model: ModelRow, x: Sequence[float], means: Sequence[float | None], color: str) -> Figure:
    marker = {"color": color, "symbol": "line-ew-open", "size": 15, "line": {"width": 3}}
    about = {"hovertemplate": "mean %{y:.3f}<extra></extra>", "name": plain(model.label), "showlegend": False}
    return trace("markers", x, means, marker=marker, **about)


def _mean_of_cases(model: ModelRow, x: float) -> Figure:
    dice = model.scores["dice"]
    mark = _means(model, [x], [dice["mean"]], "@text")
    if dice["ci95"] and dice["mean"] is not None:
        low, high = dice["ci95"]
        ends = {"array": [high - dice["mean"]], "arrayminus": [dice["mean"] - low]}
        mark["error_y"] = {"type": "data", "symmetric": False, **ends, "color": "@text", "thickness": 1.5}
    return mark


def _per_organ(contents: Contents) -> Figure | None:
    classes, width = contents.classes.foreground, 0.7 / max(1, len(contents.models))
    data: list[Figure] = []
    for number, model in enumerate(contents.models):
        dice = model.scores["dice"]
        places = [place + (number - (len(contents.models) - 1) / 2) * width for place in range(len(classes))]
        points = [
            (x, value, case)
            for x, name in zip(places, classes, strict=True)
            for case in contents.cases
            if (value := dice["per_case"].get(case, {}).get(name)) is not None
        ]
        hover = "%{text}: %{y:.3f}<extra>%{fullData.name}</extra>"
        data.append(_case_points(model, number, points, 7, 0.7, hovertemplate=hover))
        data.append(_means(model, places, [dice["per_class"].get(name) for name in classes], f"@{number}"))
    ticks = {"tickvals": list(range(len(classes))), "ticktext": [plain(name) for name in classes]}
    about = f"A point is a case, a bar the mean of the model. A click opens the case.{_seen_note(contents)}"
    return chart("Every class", about, data, {"xaxis": ticks, "yaxis": axis("Dice")})


def _confusion(model: ModelRow, names: Sequence[str]) -> Figure:
    assert model.confusion is not None
    rows = model.confusion / model.confusion.sum(axis=1, keepdims=True).clip(min=1)
    shown = [plain(name) for name in names]
    heat: Figure = {
        "type": "heatmap",
        "z": rows.tolist(),
        "x": shown,
        "y": shown,
        "text": [[f"{100 * v:.1f}" for v in row] for row in rows],
        "texttemplate": "%{text}",
        "colorscale": "Cividis",
        "zmin": 0,
        "zmax": 1,
        "showscale": False,
        "customdata": model.confusion.tolist(),
        "hovertemplate": "truth %{y}, predicted %{x}: %{customdata:,} voxels<extra></extra>",
    }
    layout: Figure = {
        "yaxis": axis("truth", type="category", autorange="reversed"),  # plotly would take names for numbers or dates
        "xaxis": axis("predicted", type="category", side="bottom"),
    }
    about = "Percent of the voxels of a class (row) that got each label (column)."
    return chart(f"Confusion of {model.label}", about, [heat], layout)
