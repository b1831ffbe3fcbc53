"""results.json as a Markdown page and as a table for a terminal."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attunet.benchmarks.evaluation.scores import SCORES
from attunet.metrics.aggregate import mean
from attunet.metrics.results import EvaluatedRow, EvaluationResults, PerClass
from attunet.system.environment import Environment
from attunet.system.plain_text import markdown_table, named, printable_line, table_cell

METRICS = {  # name in results.json: title, decimals
    "dice": ("Dice", 3),
    "hd95_mm": ("HD95 mm", 1),
    "assd_mm": ("ASSD mm", 2),
    "mssd_mm": ("MSSD mm", 1),
    "ravd_percent": ("RAVD %", 1),
    "surface_dice": ("surface Dice", 3),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
    "chaos_score": ("CHAOS score", 1),
}

Table = tuple[list[str], list[list[str]]]  # header, rows
Json = dict[str, Any]  # results of a benchmark, or a row of them, as JSON values


def summary_table(results: EvaluationResults) -> str:
    """Dice and latency as aligned plain text, one row per model, and notes."""
    header, rows = _summary(results)
    return "\n".join([aligned([header, *rows]), *map(printable_line, notes(results))])


def markdown(results: EvaluationResults) -> str:
    store = results["store"]
    header, rows = _summary(results)
    parts = [
        "# Evaluation",
        f"Store {table_cell(store['name'])}, {selection(store['fold'])}: {table_cell(', '.join(store['cases']))}. "
        "Dice per case in 3D on the native grid, mean over the foreground classes, then over the cases that the model "
        "has not seen in training; 95 % interval by bootstrap over patients (from five on). Agreement: Dice between "
        "the model's label maps and those of the first model, all cases together.",
        table(header, rows),
        *map(table_cell, notes(results)),
        "## Per class",
        table(*_per_class(results)),
        "## Per case",
        table(*_per_case(results)),
        "## Comparison with the first model",
        *_comparisons(results),
        "## The network alone",
        "Milliseconds of one pass over a batch of slices of the training window's size, the models in turn; input and "
        "output are on the backend's device.",
        table(*_latency(results)),
        "## A volume from file to file",
        "Milliseconds, mean over the cases; the files are in the system's cache.",
        table(*_volume(results)),
        "## Environment",
        *_environment(results["environment"]),
    ]
    return "\n\n".join(parts) + "\n"


def model_label(row: EvaluatedRow) -> str:
    """Name of a row of results.json in tables and plots."""
    return label_of(row["name"], row["backend"], row["provider"], row["precision"])


def label_of(name: str, backend: str, provider: str, precision: str) -> str:
    where = dict.fromkeys((backend, provider))  # openvino is both
    return f"{name} ({' '.join([*where, *([] if precision == 'fp32' else [precision])])})"


def selection(fold: int | None) -> str:
    """The cases of an evaluation, in words."""
    return "all labelled cases" if fold is None else f"the cases that fold {fold} holds out"


def unit_notes(unit: str) -> list[str]:
    """A sentence about results whose distances are not in mm, as their tables and fields say."""
    return [] if unit == "mm" else ["The images have no physical spacing: what is called mm is pixels."]


def number(value: float | None, digits: int = 3) -> str:
    """A rounded number, or a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def interval(ends: Sequence[float] | None) -> str:
    """Both ends of an interval, or a dash for None."""
    return "–" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def _summary(results: EvaluationResults) -> Table:
    agreements = {c["second"]: number(c["agreement"]["dice"], 4) for c in results["comparisons"]}
    columns: dict[str, Callable[[EvaluatedRow], str]] = {
        "model": model_label,
        "Dice": lambda row: number(row["dice"]["mean"]),
        "95 %": lambda row: interval(row["dice"]["ci95"]),
        "HD95 mm": lambda row: number(row["hd95_mm"]["mean"], 1),
        "ASSD mm": lambda row: number(row["assd_mm"]["mean"], 2),
        "agreement": lambda row: agreements.get(model_label(row), "–"),
        "ms at batch 1 (p50)": lambda row: number(row["latency_ms"]["batch"]["1"]["p50"], 1),
        "p99": lambda row: number(row["latency_ms"]["batch"]["1"]["p99"], 1),
        "slices/s at batch 8": lambda row: number(row["throughput_slices_per_s"]["batch"]["8"], 1),
        "memory MB": lambda row: number(row["peak_memory_mb"], 0),
        "file MB": lambda row: number(row["file_mb"], 1),
    }
    return list(columns), [[cell(row) for cell in columns.values()] for row in results["models"]]


def notes(results: EvaluationResults) -> list[str]:
    """The unit of distances, and the cases seen in training, one sentence for all models with the same ones."""
    models: dict[tuple[str, ...], list[str]] = {}
    for row in results["models"]:
        models.setdefault(tuple(row["seen_cases"]), []).append(model_label(row))
    lines = unit_notes(results["store"]["unit"])
    for seen, labels in models.items():
        if seen:
            left = set(results["store"]["cases"]) - set(seen)
            effect = "they are not in its means" if left else "no case is left for its means"
            lines.append(f"Trained on {named(seen)}, or on their patients: {', '.join(labels)}; {effect}.")
    return lines


def _per_class(results: EvaluationResults) -> Table:
    rows = []
    for row in results["models"]:
        values: dict[str, PerClass] = {metric: row[metric]["per_class"] for metric in SCORES}
        values |= {"precision": row["precision_per_class"], "recall": row["recall_per_class"]}
        for name in row["dice"]["per_class"]:
            figures = [number(values[metric][name], digits) for metric, (_, digits) in METRICS.items()]
            rows.append([model_label(row), name, *figures])
    return ["model", "class", *(title for title, _ in METRICS.values())], rows


def _per_case(results: EvaluationResults) -> Table:
    classes = [c["name"] for c in results["store"]["classes"][1:]]
    rows = []
    for case in results["store"]["cases"]:
        for row in results["models"]:
            dice = row["dice"]["per_case"][case]
            average = mean(v for v in dice.values() if v is not None)
            figures = [number(None if math.isnan(average) else average), *(number(dice[name]) for name in classes)]
            rows.append([case, model_label(row), *figures, "seen" if case in row["seen_cases"] else ""])
    return ["case", "model", "mean Dice", *classes, "training"], rows


def _comparisons(results: EvaluationResults) -> list[str]:
    lines = []
    for c in results["comparisons"]:
        agreement = c["agreement"]
        equal = "–" if agreement["equal_voxels"] is None else f"{100 * agreement['equal_voxels']:.3f} %"
        agree = f"agree with Dice {number(agreement['dice'], 4)}; {equal} of all voxels are equal."
        lines.append(f"- {table_cell(c['words'])} Their label maps {agree}")
    return ["\n".join(lines)] if lines else ["There is only one model."]


def _latency(results: EvaluationResults) -> Table:
    rows = []
    for row in results["models"]:
        for batch, latency in row["latency_ms"]["batch"].items():
            figures = [number(milliseconds, 2) for milliseconds in (latency["p50"], latency["p95"], latency["p99"])]
            throughput = number(row["throughput_slices_per_s"]["batch"][batch], 1)
            shape = " × ".join(str(n) for n in row["latency_ms"]["slice_shape"])
            rows.append([model_label(row), shape, batch, *figures, str(latency["runs"]), throughput])
    return ["model", "slice", "batch", "p50", "p95", "p99", "runs", "slices/s"], rows


def _volume(results: EvaluationResults) -> Table:
    steps = list(results["models"][0]["volume_ms"])
    rows = [[model_label(row), *(number(row["volume_ms"][step], 0) for step in steps)] for row in results["models"]]
    return ["model", *steps], rows


def _environment(about: Environment) -> list[str]:
    cpu, gpus = about["cpu"], about["gpus"]
    clock = f" at {cpu['clock_mhz']} MHz" if cpu["clock_mhz"] else ""
    devices = [f"{cpu['name']}, {cpu['usable_cores']} cores{clock}"]
    devices += [f"{gpu['name']}, driver {gpu['driver']}" for gpu in gpus]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return [f"{'; '.join(devices)}. Python {about['python']}, {versions}. Commit {about['commit'] or 'unknown'}."]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of any texts."""
    head, *cells = [[table_cell(cell) for cell in row] for row in [header, *rows]]
    return markdown_table(head, cells)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Cells in columns, the first one left-aligned, the others right-aligned."""
    rows = [[printable_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))])
        for first, *rest in rows
    )
    return "\n".join(lines)


def format_table(rows: Iterable[Mapping[str, object]], columns: Mapping[str, str]) -> str:
    """Aligned text. columns: header -> format of its cells, "{p50_ms:.2f}"; a dash stands for None."""
    shown = [[_cell(row, template) for template in columns.values()] for row in rows]
    return aligned([list(columns), *shown])


def _cell(row: Mapping[str, object], template: str) -> str:
    try:
        return template.format_map(row)
    except TypeError:  # None has no format of numbers
        return "-"
