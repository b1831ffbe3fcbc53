"""The tables of a report: every figure with the value to sort by and how it was got."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from attunet.benchmarks.report.contents import Contents, ModelRow
from attunet.metrics.overlap import SURFACE_DICE_TOLERANCE_MM
from attunet.metrics.results import Metric, Speed

DASH = "–"
METRICS: dict[Metric, tuple[str, int, str]] = {  # name in results.json: title, decimals, how it is got
    "dice": ("Dice", 3, "Dice of each class in 3D on the scan's own grid, 2 TP / (2 TP + FP + FN)"),
    "hd95_mm": ("HD95 mm", 1, "the larger of the two directed 95th percentiles of the distances between the surfaces"),
    "assd_mm": ("ASSD mm", 2, "mean distance between the surfaces, in both directions"),
    "surface_dice": (
        "Surface Dice",
        3,
        f"share of both surfaces at most {SURFACE_DICE_TOLERANCE_MM:g} mm from the other",
    ),
}


@dataclass(frozen=True)
class Cell:
    text: str
    value: float | str | None = None  # to sort by, None last
    how: str = ""  # the figure was got
    case: str | None = None  # that the cell leads to


@dataclass(frozen=True)
class Column:
    """A column; numeric ones are set to the right."""

    title: str
    how: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    identity: str  # of its element
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def figure(value: float | None, digits: int, how: str) -> Cell:
    """A number, or a dash where it is not defined."""
    if value is None or math.isnan(value):
        return Cell(DASH, None, how)
    return Cell(f"{value:,.{digits}f}", value, how)


def models_table(contents: Contents) -> Table:
    """One row per model: accuracy, and the speed and size that an evaluation measured."""
    columns = [Column("Model", numeric=False)]
    columns += [
        Column(title, f"Mean: {how}; over the classes of a case, then over the cases.")
        for title, _, how in METRICS.values()
    ]
    columns.insert(2, Column("95 % interval", "Of the mean Dice: bootstrap over patients, from five patients on."))
    speed = _speed_columns() if any(m.speed for m in contents.models) else []
    columns += [column for column, _ in speed]
    rows = [(*_accuracy(m), *(make(m.speed) for _, make in speed if m.speed)) for m in contents.models]
    return Table("models", f"Models on {contents.store}", tuple(columns), tuple(rows))


def _accuracy(model: ModelRow) -> list[Cell]:
    cells = [Cell(model.label, model.label)]
    for metric, (_, digits, how) in METRICS.items():
        over = f"mean over {model.num_scored(metric)} cases that {model.label} was not trained on"
        cells.append(figure(model.scores[metric]["mean"], digits, f"{how}; {over}."))
        if metric == "dice":
            ci95 = model.scores["dice"]["ci95"]
            text = f"{ci95[0]:.3f} – {ci95[1]:.3f}" if ci95 else DASH
            why = "10,000 bootstrap draws over patients." if ci95 else "None: fewer than five patients."
            cells.append(Cell(text, ci95[0] if ci95 else None, why))
    return cells


def _speed_columns() -> list[tuple[Column, Callable[[Speed], Cell]]]:
    def latency(speed: Speed) -> Cell:
        one = speed["latency_ms"]["batch"]["1"]
        shape = " × ".join(str(n) for n in speed["latency_ms"]["slice_shape"])
        how = (
            f"Median of {one['runs']} passes over one slice of {shape}, the network alone; p95 {one['p95']:.1f}, p99 "
            f"{one['p99']:.1f} ms."
        )
        return figure(one["p50"], 1, how)

    def throughput(speed: Speed) -> Cell:
        batches = speed["throughput_slices_per_s"]["batch"]
        size = max(batches, key=int)
        return figure(batches[size], 1, f"Slices per second of the network alone at batch {size}.")

    return [
        (Column("ms / slice", "Median latency of one slice, the network alone."), latency),
        (Column("slices / s", "At the largest batch that was timed."), throughput),
        (
            Column("Memory MB", "Peak of a process that loads this model alone and runs it."),
            lambda m: figure(m["peak_memory_mb"], 0, "Peak memory of a process of its own, libraries included."),
        ),
        (
            Column("Size MB", "Of the file, or of a run's weights."),
            lambda m: figure(m["file_mb"], 1, f"{m['num_parameters']:,} parameters, {m['precision']}."),
        ),
    ]


def organs_table(contents: Contents) -> Table:
    """One row per model and class."""
    titles = (Column(title, f"{how}; mean over the cases.") for title, _, how in METRICS.values())
    columns = (Column("Class", numeric=False), Column("Model", numeric=False), *titles)
    rows = []
    for name in contents.classes.foreground:
        for model in contents.models:
            cells = [
                figure(
                    model.scores[metric]["per_class"].get(name),
                    digits,
                    f"{name}: {how}; mean over {model.num_scored(metric, name)} cases.",
                )
                for metric, (_, digits, how) in METRICS.items()
            ]
            rows.append((Cell(name, name), Cell(model.label, model.label), *cells))
    return Table("organs", "Scores per class", columns, tuple(rows))


def cases_table(contents: Contents, shown: Sequence[str]) -> Table:
    """One row per case and model, the worst first. shown: cases that the page can show slice by slice."""
    columns = (
        Column("Case", "A link opens the case at its worst slice.", False),
        Column("Model", numeric=False),
        Column("Dice", "Mean"),
        *(Column(name, f"Dice of {name}") for name in contents.classes.foreground),
        Column("HD95 mm", "Mean over the classes"),
        Column("Training", "Yes where the model has seen the case", False),
    )
    rows = []
    for case in contents.cases:
        for model in contents.models:
            if case not in model.scores["dice"]["per_case"]:
                continue
            values = model.scores["dice"]["per_case"][case]
            classes = [
                figure(values.get(n), 3, f"Dice of {n} in case {case}, {model.label}.")
                for n in contents.classes.foreground
            ]
            dice = figure(model.case_mean(case), 3, f"Mean over the classes of case {case}, in 3D.")
            how = f"{METRICS['hd95_mm'][2]}; mean over the classes of case {case}."
            distance = figure(model.case_mean(case, "hd95_mm"), 1, how)
            seen = Cell("seen", "seen", "Not in the model's means.") if case in model.seen else Cell("", "")
            link = case if case in shown else None
            rows.append((Cell(case, case, case=link), Cell(model.label, model.label), dice, *classes, distance, seen))
    return Table("cases-table", "Scores per case", columns, tuple(rows))


def data_table(contents: Contents) -> Table:
    """Hashes of the cases, as the store has them."""
    titles = ("Case", "SHA-256 of the image", "SHA-256 of the labels")
    columns = tuple(Column(title, numeric=False) for title in titles)
    rows = []
    for case, details in sorted(contents.case_details.items()):
        texts = [case, *(str(details.get(name) or DASH) for name in ("image_sha256", "label_sha256"))]
        rows.append(tuple(Cell(text, text) for text in texts))
    return Table("data", "Hashes of the data", columns, tuple(rows))
