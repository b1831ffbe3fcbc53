"""The folder of an evaluation as the contents of a report."""

from pathlib import Path
from typing import cast

import numpy as np

from attunet.benchmarks.evaluation.details import FILE as DETAILS
from attunet.benchmarks.evaluation.details import EvaluationDetails, ModelDetails
from attunet.benchmarks.evaluation.results_table import model_label
from attunet.benchmarks.evaluation.saved_cases import FOLDER
from attunet.benchmarks.evaluation.scores import SCORES
from attunet.benchmarks.report.contents import Contents, ModelRow, worst_first
from attunet.classes import Classes
from attunet.fields import Fields, read_json
from attunet.metrics.results import EvaluatedRow, EvaluationResults

SCHEMA = 1  # of results.json


def contents_of(folder: Path, results: EvaluationResults) -> Contents:
    """Contents from results.json and, for cards, curves and hashes, details.json if there is one."""
    details: EvaluationDetails = {"schema": SCHEMA, "models": {}, "cases": {}, "commands": {}}
    if (folder / DETAILS).is_file():
        details = cast(EvaluationDetails, {**details, **read_json(folder / DETAILS).data})
    models = [
        _row(folder, index, row, details["models"].get(model_label(row), {}))
        for index, row in enumerate(results["models"])
    ]
    store, cases = results["store"], results["store"]["cases"]
    commands = [
        details["commands"].get("prepare"),
        *(model.details.get("command") for model in models if model.details),
        details["commands"].get("evaluate"),
    ]
    which = (
        "all labelled cases" if store["fold"] is None else f"the cases that fold {store['fold']} leaves out of training"
    )
    return Contents(
        kind="evaluation",
        folder=folder,
        store=store["name"],
        classes=Classes.from_json(Fields(store, "store").rows("classes")),
        cases=worst_first(cases, models),
        models=tuple(models),
        comparisons=tuple(results["comparisons"]),
        environment=results["environment"],
        case_details=details["cases"],
        commands=tuple(dict.fromkeys(line for line in commands if line)),
        about=f"{len(cases)} case{'s' if len(cases) > 1 else ''}: {which}",
    )


def _row(folder: Path, index: int, row: EvaluatedRow, details: ModelDetails) -> ModelRow:
    label, cases = model_label(row), row["dice"]["per_case"]
    curves = details.get("curves")

    def files(name: str) -> dict[str, Path]:
        paths = {case: folder / FOLDER / case / f"{name}-{index}.npz" for case in cases}
        return {case: path for case, path in paths.items() if path.is_file()}

    return ModelRow(
        label=label,
        scores={metric: row[metric] for metric in SCORES},
        speed=row,
        confusion=np.array(row["confusion"]),
        seen=frozenset(row["seen_cases"]),
        predictions=files("prediction"),
        attention=files("attention"),
        curves={label: curves} if curves else {},
        details=details,
    )
