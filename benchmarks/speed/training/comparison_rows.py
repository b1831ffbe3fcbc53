"""The rows of a comparison of trainings, from what each program measured: as JSON values, and as a table."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from attunet.benchmarks.evaluation.results_table import Json, format_table
from attunet.benchmarks.speed.program import percentile_fields
from attunet.benchmarks.speed.training.others import Task
from attunet.metrics.aggregate import nan_to_null
from attunet.store import Store
from attunet.system.environment import environment

COLUMNS = {
    "training": "{name}",
    "slices/s": "{slices_per_s:.2f}",
    "ms/step": "{step_ms_p50:.0f}",
    "waiting": "{waiting_share:.2%}",
    "memory MB": "{peak_memory_mb:.0f}",
    "parameters": "{num_parameters:,}",
    "times plain": "{times_plain:.2f}",
    "times monai": "{times_monai:.2f}",
    "times nnunet": "{times_nnunet:.2f}",
}


def results_of(store: Store, task: Task, measured: Mapping[str, Sequence[Json]], rounds: int) -> Json:
    """Rows of the programs, None where nothing was measured. `times_plain`, `times_monai`, `times_nnunet`: a program's
    rate over theirs.
    """
    rows = [_row(name, own, task.batch_size) for name, own in measured.items() if own]
    rates = {row["name"]: row["slices_per_s"] for row in rows}
    for row in rows:
        for other in ("plain", "monai", "nnunet"):
            theirs = rates.get(other)
            row[f"times_{other}"] = row["slices_per_s"] / theirs if row["slices_per_s"] and theirs else None
    settings = {k: v for k, v in dataclasses.asdict(task).items() if k not in ("program", "store", "slices")}
    settings |= {"rounds": rounds, "shape": [task.batch_size, store.spec.in_channels, *store.spec.size]}
    return {"environment": environment(), "settings": settings, "results": rows}


def _row(name: str, rows: Sequence[Json], batch_size: int) -> Json:
    """`start_s`: seconds of each part of the start, in the round where it took longest."""
    timed = [row for row in rows if row["steps"]]
    memory = [row["peak_memory_mb"] for row in timed if row["peak_memory_mb"] is not None]
    last = (timed or list(rows))[-1]
    step_s = np.array([row["seconds"] / row["steps"] for row in timed] or [np.nan])
    return nan_to_null(
        {
            "name": name,
            "device": last["device"],
            "num_parameters": last["num_parameters"],
            "slices_per_s": batch_size / float(np.median(step_s)),
            "waiting_share": sum(row["waiting_s"] for row in timed) / (sum(row["seconds"] for row in timed) or np.nan),
            "peak_memory_mb": max(memory, default=None),
            "start_s": max((row["start_s"] for row in rows), key=lambda parts: sum(parts.values())),
            "note": rows[-1]["note"],
            **percentile_fields(1000 * step_s, "step_ms_p{}"),
        }
    )


def table(results: Json) -> str:
    """The rows, and below them the start and the note of each."""
    rows = results["results"]
    text = format_table(rows, COLUMNS)
    for row in rows:
        parts = ", ".join(f"{part} {seconds:.1f}" for part, seconds in row["start_s"].items())
        note = f"; {row['note']}" if row["note"] else ""
        text += f"\n{row['name']}: start {sum(row['start_s'].values()):.1f} s ({parts}){note}"
    return text
