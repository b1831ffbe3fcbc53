"""Origin of the models of an evaluation, for a report: cards, settings, training curves, commands;
file names without paths.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict, cast

from attunet.benchmarks.evaluation.models import EvaluatedModel
from attunet.classes import ClassRow
from attunet.config import Config, DataConfig
from attunet.manifest import Case
from attunet.metrics.results import MetricsRow
from attunet.store import Store

if TYPE_CHECKING:  # needs torch, which an evaluation of artefacts does without
    from attunet.runs.load_run import TrainedRun

FILE = "details.json"
SCHEMA = 1


class CaseDetails(TypedDict):
    """Hashes of a case, and its size where an evaluation wrote it; no name of a file and no patient."""

    shape: NotRequired[list[int]]
    spacing: NotRequired[list[float]]
    image_sha256: str
    label_sha256: str | None


class CurvePoint(TypedDict):
    """A training step or a validation, for the curves of a report."""

    event: str
    epoch: float
    seconds: float
    loss: float
    dice: NotRequired[float | None]


class ModelDetails(TypedDict, total=False):
    """`card`: text; `settings`: of the training, by section; `command`: that made the model."""

    card: str
    settings: Mapping[str, object]
    license: str | None
    curves: list[CurvePoint]
    command: str


class PrepareRequest(TypedDict):
    """The caller's choices in a store's manifest. `splits`: folds and seed, or the user's own."""

    layout: str
    classes: tuple[list[ClassRow], int | None] | None
    case_pattern: str | None
    images: list[str]
    masks: list[str]
    choices: dict[str, str]
    data: dict[str, object]
    splits: list[int] | dict[str, object]
    labelled: dict[str, list[str]] | None


class EvaluationDetails(TypedDict):
    """details.json. `commands`: of the preparation and the evaluation."""

    schema: int
    commands: dict[str, str]
    cases: dict[str, CaseDetails]
    models: dict[str, ModelDetails]


def evaluation_details(
    store: Store,
    cases: Sequence[Case],
    models: Sequence[EvaluatedModel],
    arguments: Sequence[str],
    *,
    is_hidden: bool = False,
) -> EvaluationDetails:
    """The origin of all models.

    Args:
        store: of the evaluation.
        cases: evaluated ones.
        models: evaluated ones.
        arguments: of `attunet evaluate`, after the models.
        is_hidden: leaves out the names of the cases that runs were trained on.

    Example:
        >>> evaluation_details(store, store.cases, models, ["--fold", "0"])["commands"]  # doctest: +SKIP
    """
    names = [c.path.name for c in models]
    return {
        "schema": SCHEMA,
        "commands": {
            "prepare": preparing_command(store),
            "evaluate": command("evaluate", store.name, *dict.fromkeys(names), *arguments),
        },
        "cases": {case.name: case_details(case) for case in cases},
        "models": {c.label: model_details(c, is_hidden=is_hidden) for c in models},
    }


def case_details(case: Case) -> CaseDetails:
    """Size and hashes of a case."""
    return {
        "shape": list(case.native_shape),
        "spacing": list(case.spacing),
        "image_sha256": case.image_sha256,
        "label_sha256": case.label_sha256,
    }


def model_details(model: EvaluatedModel, *, is_hidden: bool = False) -> ModelDetails:
    """The origin of a model; empty if it is neither a run nor an artefact."""
    if model.backend == "pytorch":
        return _of_run(model, is_hidden)
    if model.path.suffix != ".onnx":
        return {}
    from attunet.export.artefact.artefact_file import load_artefact
    from attunet.export.artefact.card import card

    about, _ = load_artefact(model.path)
    precision = [] if about.precision == "fp32" else ["--precision", about.precision]
    return {
        "card": card(model.path, is_hidden=is_hidden),
        "settings": about.config,
        "license": about.license,
        "curves": [],
        "command": command("export", about.name, model.path.name, *precision),
    }


def _of_run(model: EvaluatedModel, is_hidden: bool) -> ModelDetails:
    from attunet.runs.ensemble import load_runs
    from attunet.runs.run_folder import read_metrics

    run = load_runs(model.path)
    return {
        "card": run_card(run, is_hidden=is_hidden),
        "settings": run.config.to_json(),
        "license": None,
        "curves": curves_of(read_metrics(model.path)),
        "command": training_command(run.store.name, model.path.name, run.fold, run.config),
    }


def run_card(run: "TrainedRun", *, is_hidden: bool = False) -> str:
    """A run for a person to read; with `is_hidden` without the names of cases."""
    network = ", ".join(f"{key} {value}" for key, value in run.config.to_json()["model"].items())
    cases, spec = run.training_cases, run.preprocessing.spec
    rows = [
        ("run", f"{run.name}, {run.num_parameters:,} parameters, {run.step:,} steps"),
        ("network", network),
        ("trained on", f"{len(cases)} cases (fold {run.fold})" + ("" if is_hidden else f": {', '.join(cases)}")),
        ("afterwards", run.postprocessing.words_in(spec.unit)),
    ]
    width = max(len(title) for title, _ in rows)
    return "\n".join([*(f"{title:<{width}}  {text}" for title, text in rows), "", "Not a medical device."])


def curves_of(rows: Sequence[MetricsRow]) -> list[CurvePoint]:
    """The points of a report's curves, from the rows of a `metrics.jsonl`."""
    kept = []
    for row in rows:
        if row["event"] not in ("train", "validation"):
            continue
        point: CurvePoint = {
            "event": row["event"],
            "epoch": row["epoch"],
            "seconds": row["seconds"],
            "loss": row["loss"],
        }
        if row["event"] == "validation":
            point["dice"] = row["dice"]["mean"]
        kept.append(point)
    return kept


def preparing_command(store: Store) -> str:
    """`attunet prepare` with everything that is not the default; SOURCE and FILE.json stand for names that a report
    must not tell.
    """
    request = cast(PrepareRequest, store.manifest["request"])
    words = [] if request["layout"] == "auto" else ["--layout", request["layout"]]
    if request["classes"]:
        rows, ignored = request["classes"]
        values = [f"{row['name']}={row['value']}" for row in rows[1:]] + (
            [] if ignored is None else [f"ignore={ignored}"]
        )
        words += ["--classes", ",".join(values)]
    if request["case_pattern"]:
        words += ["--case-pattern", request["case_pattern"]]
    for option, suffixes in (("images", request["images"]), ("masks", request["masks"])):
        words += [f"--{option}", ",".join(suffixes)] if suffixes else []
    for rule, value in request["choices"].items():
        words += ["--series", value] if rule == "dicom-series" else ["--read", f"{rule}={value}"]
    default = vars(DataConfig())
    changed = {field: value for field, value in request["data"].items() if _written(value) != _written(default[field])}
    words += [word for field, value in changed.items() for word in ("--set", f"data.{field}={_written(value)}")]
    if isinstance(request["splits"], list):
        words += [
            word
            for option, value in zip(("folds", "seed"), request["splits"], strict=True)
            for word in (f"--{option}", str(value))
        ]
    else:
        words += ["--splits", "FILE.json"]
    words += ["--labelled", "FILE.json"] if request["labelled"] else []
    return command("prepare", "SOURCE", store.name, *words)


def training_command(store: str, run: str, fold: int | str, config: Config) -> str:
    """`attunet train` with every setting that is not the default; `[data]` comes from the store."""
    settings = settings_of(config)
    return command("train", store, run, "--model", config.model.name, "--fold", str(fold), *settings)


def settings_of(config: Config) -> list[str]:
    """`--set SECTION.FIELD=VALUE` of everything but `[data]` that differs from the defaults."""
    default = Config().to_json()
    chosen = []
    for section, fields in config.to_json().items():
        for field, value in fields.items():
            if section != "data" and (section, field) != ("model", "name") and value != default[section][field]:
                chosen += ["--set", f"{section}.{field}={_written(value)}"]
    return chosen


def command(name: str, *words: str) -> str:
    """A command line of `attunet`, quoted for a shell."""
    return shlex.join(["attunet", name, *words])


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if not isinstance(value, list | tuple) else f"[{', '.join(map(str, value))}]"
