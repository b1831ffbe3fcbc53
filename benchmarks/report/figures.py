"""The charts of a report: every case, every class, what is taken for what, and those of speed and training."""

import math
from collections.abc import Callable, Mapping, Sequence

from attunet.benchmarks.report.chart import SYMBOLS, Figure, chart, plain
from attunet.benchmarks.report.contents import Contents, ModelRow, twins_of
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
    made = {name: make(contents) for name, make in makers.items()}
    charts = {name: one for name, one in made.items() if one is not None}
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
            "line": {"color": "@text", "width": 1},
            "opacity": 0.4,
        }
        data.append({**line, "type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False})
    for number, model in enumerate(contents.models):
        cases = [case for case in contents.cases if not math.isnan(model.case_mean(case))]
        x, y = [number + places[case] for case in cases], [model.case_mean(case) for case in cases]
        points: Figure = {"x": x, "y": y, "customdata": cases}
        hover = "%{customdata}: %{y:.3f}<extra></extra>"
        marker = {"color": f"@{number}", "symbol": _symbols(model, number, cases), "size": 8, "opacity": 0.85}
        data.append(
            {
                **points,
                "type": "scatter",
                "mode": "markers",
                "marker": marker,
                "hovertemplate": hover,
                "name": plain(model.label),
                "showlegend": False,
            }
        )
        data.append(_mean_mark(model, number + 0.3))
    if not contents.cases:
        return None
    ticks = {"tickvals": list(range(len(contents.models))), "ticktext": [_wrapped(m.label) for m in contents.models]}
    layout: Figure = {
        "xaxis": {**ticks, "range": [-0.5, len(contents.models) - 0.5]},
        "yaxis": {"title": {"text": "mean Dice of a case"}},
    }
    about = (
        "A point is a case, a grey line joins the same case in all models; beside them the mean with its 95 % "
        "interval. "
        f"A click opens the case.{_seen_note(contents)}"
    )
    return chart("Every case", about, data, layout)


def _symbols(model: ModelRow, number: int, cases: Sequence[str]) -> list[str]:
    """A mark for every case, hollow where the model was trained on it."""
    symbol = SYMBOLS[number % len(SYMBOLS)]
    return [f"{symbol}-open" if case in model.seen else symbol for case in cases]


def _seen_note(contents: Contents) -> str:
    seen = any(model.seen for model in contents.models)
    return " Hollow points were seen in training and are in no mean." if seen else ""


def _mean_mark(model: ModelRow, x: float) -> Figure:
    dice = model.scores["dice"]
    mark: Figure = {
        **{
            "type": "scatter",
            "mode": "markers",
            "x": [x],
            "y": [dice["mean"]],
            "showlegend": False,
            "name": plain(model.label),
        },
        **{"marker": {"color": "@text", "symbol": "line-ew-open", "size": 14, "line": {"width": 3}}},
        "hovertemplate": "mean %{y:.3f}<extra></extra>",
    }
    if dice["ci95"] and dice["mean"] is not None:
        low, high = dice["ci95"]
        above, below = [high - dice["mean"]], [dice["mean"] - low]
        mark["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": above,
            "arrayminus": below,
            "color": "@text",
            "thickness": 1.5,
        }
    return mark


def _places(contents: Contents) -> dict[str, float]:
    """Horizontal position of a case in the column of its model."""
    last = max(1, len(contents.cases) - 1)
    return {case: SPREAD * (2 * n / last - 1) for n, case in enumerate(contents.cases)}


def _per_organ(contents: Contents) -> Figure | None:
    data: list[Figure] = []
    width = 0.7 / max(1, len(contents.models))
    for number, model in enumerate(contents.models):
        x: list[float] = []
        y: list[float] = []
        cases: list[str] = []
        means: list[float | None] = []
        offset = (number - (len(contents.models) - 1) / 2) * width
        for place, name in enumerate(contents.classes.foreground):
            means.append(model.scores["dice"]["per_class"].get(name))
            for case in contents.cases:
                value = model.scores["dice"]["per_case"].get(case, {}).get(name)
                if value is not None:
                    x.append(place + offset)
                    y.append(value)
                    cases.append(case)
        hover = "%{customdata}: %{y:.3f}<extra>" + plain(model.label) + "</extra>"
        marker = {"color": f"@{number}", "symbol": _symbols(model, number, cases), "size": 7, "opacity": 0.7}
        one = {
            "x": x,
            "y": y,
            "customdata": cases,
            "marker": marker,
            "name": plain(model.label),
            "hovertemplate": hover,
        }
        data.append({**one, "type": "scatter", "mode": "markers"})
        line = {"color": f"@{number}", "symbol": "line-ew-open", "size": 16, "line": {"width": 3}}
        mean = {"x": [p + offset for p in range(len(means))], "y": means, "marker": line, "showlegend": False}
        data.append(
            {
                **mean,
                "type": "scatter",
                "mode": "markers",
                "name": plain(model.label),
                "hovertemplate": "mean %{y:.3f}<extra></extra>",
            }
        )
    ticks = {
        "tickvals": list(range(len(contents.classes.foreground))),
        "ticktext": [plain(name) for name in contents.classes.foreground],
    }
    layout: Figure = {"xaxis": ticks, "yaxis": {"title": {"text": "Dice"}}}
    about = f"A point is a case, a bar the mean of the model. A click opens the case.{_seen_note(contents)}"
    return chart("Every class", about, data, layout)


def _confusion(model: ModelRow, names: Sequence[str]) -> Figure:
    assert model.confusion is not None
    rows = model.confusion / model.confusion.sum(axis=1, keepdims=True).clip(min=1)
    shown = [plain(name) for name in names]
    text = [[f"{100 * v:.1f}" for v in row] for row in rows]
    heat: Figure = {
        **{"type": "heatmap", "z": rows.tolist(), "x": shown, "y": shown, "text": text, "texttemplate": "%{text}"},
        **{"colorscale": "Cividis", "zmin": 0, "zmax": 1, "showscale": False, "customdata": model.confusion.tolist()},
        "hovertemplate": "truth %{y}, predicted %{x}: %{customdata:,} voxels<extra></extra>",
    }
    layout: Figure = {
        "yaxis": {"autorange": "reversed", "title": {"text": "truth"}},
        "xaxis": {"title": {"text": "predicted"}, "side": "bottom"},
    }
    return chart(
        f"Confusion of {model.label}",
        "Percent of the voxels of a class (row) that got each label (column).",
        [heat],
        layout,
    )


def _wrapped(label: str) -> str:
    """A model's label on two lines."""
    return plain(label).replace(" (", "<br>(")
