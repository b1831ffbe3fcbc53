"""Origin of the models of an evaluation, for a report: cards, settings, training curves, commands;
file names without paths.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict

from attunet.benchmarks.evaluation.commands import command, preparing_command, training_command
from attunet.benchmarks.evaluation.models import EvaluatedModel
from attunet.export.artefact.card import card_of
from attunet.export.runtime.segmenter import Segmenter
from attunet.manifest import Case
from attunet.metrics.results import MetricsRow
from attunet.store import Store

if TYPE_CHECKING:  # needs torch, which an evaluation of artefacts does without
    from attunet.runs.load_run import TrainedRun

FILE = "details.json"
SCHEMA = 1


class CaseDetails(TypedDict):
    """Hashes of a case; no name of a file and no patient."""

    image_sha256: str
    label_sha256: str | None


class CurvePoint(TypedDict):
    """A training step or a validation, for the curves of a report."""

    event: str
    epoch: float
    loss: float
    dice: NotRequired[float | None]


class ModelDetails(TypedDict, total=False):
    """`card`: text; `settings`: of the training, by section; `command`: that made the model."""

    card: str
    settings: Mapping[str, object]
    license: str | None
    curves: list[CurvePoint]
    command: str


class EvaluationDetails(TypedDict):
    """details.json. `commands`: of the preparation and the evaluation."""

    schema: int
    commands: dict[str, str]
    cases: dict[str, CaseDetails]
    models: dict[str, ModelDetails]


def evaluation_details(
    store: Store, cases: Sequence[Case], models: Sequence[EvaluatedModel], arguments: Sequence[str]
) -> EvaluationDetails:
    """The origin of all models. Where the store hides names, the cases that models were trained on are not listed.
    arguments: of `attunet evaluate`, after the models.
    """
    names = dict.fromkeys(model.path.name for model in models)
    return {
        "schema": SCHEMA,
        "commands": {
            "prepare": preparing_command(store),
            "evaluate": command("evaluate", store.name, *names, *arguments),
        },
        "cases": {case.name: {"image_sha256": case.image_sha256, "label_sha256": case.label_sha256} for case in cases},
        "models": {model.label: _model_details(model, store.hides_names) for model in models},
    }


def _model_details(model: EvaluatedModel, is_hidden: bool) -> ModelDetails:
    """The origin of a model; empty if it is neither a run nor an artefact."""
    if model.backend == "pytorch":
        return _of_run(model, is_hidden)
    if not isinstance(model.model, Segmenter):
        return {}
    about = model.model.metadata
    words = [] if about.precision == "fp32" else ["--precision", about.precision]
    words += ["--whole"] if about.whole else []
    words += ["--size", str(about.height), str(about.width)] if about.height else []
    return {
        "card": card_of(about, model.file_mb, is_hidden=is_hidden),
        "settings": about.config,
        "license": about.license,
        "command": command("export", about.name, model.path.name, *words),
    }


def _of_run(model: EvaluatedModel, is_hidden: bool) -> ModelDetails:
    from attunet.runs.ensemble import load_runs
    from attunet.runs.run_folder import read_metrics

    run = load_runs(model.path)
    details: ModelDetails = {"card": _run_card(run, is_hidden), "settings": run.config.to_json()}
    if run.num_members == 1:  # an ensemble is of several trainings
        details["curves"] = curves_of(read_metrics(model.path))
        details["command"] = training_command(run, model.path.name)
    return details


def _run_card(run: "TrainedRun", is_hidden: bool) -> str:
    cases = run.training_cases
    network = ", ".join(f"{key} {value}" for key, value in run.config.to_json()["model"].items())
    return as_card(
        {
            "run": f"{run.name}, {run.num_parameters:,} parameters, {run.step:,} steps",
            "network": network,
            "trained on": f"{len(cases)} cases (fold {run.fold})" + ("" if is_hidden else f": {', '.join(cases)}"),
            "afterwards": run.postprocessing.words_in(run.spec.unit),
        }
    )


def as_card(rows: Mapping[str, str]) -> str:
    """Aligned titles and texts of a model, for a person to read."""
    width = max(len(title) for title in rows)
    return "\n".join([*(f"{title:<{width}}  {text}" for title, text in rows.items()), "", "Not a medical device."])


def curves_of(rows: Sequence[MetricsRow]) -> list[CurvePoint]:
    """The points of a report's curves, from the rows of a `metrics.jsonl`."""
    points = []
    for row in rows:
        if row["event"] in ("train", "validation"):
            point: CurvePoint = {"event": row["event"], "epoch": row["epoch"], "loss": row["loss"]}
            if row["event"] == "validation":
                point["dice"] = row["dice"]["mean"]
            points.append(point)
    return points
