"""Command lines of `attunet` that make a store or a run again, for reports; file names without paths."""

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from attunet.benchmarks.evaluation.results_table import Json
from attunet.config import Config, DataConfig
from attunet.store import Store

if TYPE_CHECKING:  # needs torch, which an evaluation of artefacts does without
    from attunet.runs.load_run import TrainedRun


def command(name: str, *words: str) -> str:
    """A command line of `attunet`, quoted for a shell."""
    return shlex.join(["attunet", name, *words])


def repeated(option: str, values: Iterable[str]) -> list[str]:
    """The words of an option that is given once for each value."""
    return [word for value in values for word in (option, value)]


def preparing_command(store: Store) -> str:
    """`attunet prepare` with everything that is not the default; words in capitals stand for what a report must not
    tell.
    """

    def shown(value: str, word: str) -> str:
        return word if store.hides_names else value  # as the user typed it, it may have names

    request = cast(Json, store.manifest["request"])
    words = [] if request["layout"] == "auto" else ["--layout", request["layout"]]
    if request["classes"]:
        rows, ignored = request["classes"]
        values = [f"{row['name']}={row['value']}" for row in rows[1:]]
        words += ["--classes", ",".join([*values, *([] if ignored is None else [f"ignore={ignored}"])])]
    words += ["--case-pattern", shown(request["case_pattern"], "PATTERN")] if request["case_pattern"] else []
    for option in ("images", "masks"):
        words += [f"--{option}", shown(",".join(request[option]), "WORDS")] if request[option] else []
    for rule, value in request["choices"].items():
        words += ["--series", shown(value, "TEXT")] if rule == "dicom-series" else ["--read", f"{rule}={value}"]
    default = {field: _written(value) for field, value in vars(DataConfig()).items()}
    data = {field: _written(value) for field, value in request["data"].items()}
    words += repeated("--set", (f"data.{field}={text}" for field, text in data.items() if text != default.get(field)))
    if isinstance(request["splits"], list):
        folds, seed = request["splits"]
        words += ["--folds", str(folds), "--seed", str(seed)]
    else:
        words += ["--splits", "FILE.json"]
    words += ["--labelled", "FILE.json"] if request["labelled"] else []
    words += ["--pseudonymise", "KEY.csv"] if store.is_pseudonymised else []
    return command("prepare", "SOURCE", store.name, *words)


def training_command(run: "TrainedRun", name: str) -> str:
    """`attunet train` with every setting that is not the default; `[data]` comes from the store. name: of the run."""
    default, config, lineage = Config().to_json(), run.config, run.lineage
    settings = [
        f"{section}.{field}={_written(value)}"
        for section, fields in config.to_json().items()
        for field, value in fields.items()
        if section != "data" and (section, field) != ("model", "name") and value != default[section][field]
    ]
    words = ["--model", config.model.name, "--fold", str(run.fold), *repeated("--set", settings)]
    if lineage is not None:
        renamed = ",".join(f"{new}={old}" for new, old in lineage.classes.items() if new != old)
        words += ["--init", lineage.parent, *(["--init-classes", renamed] if renamed else [])]
    return command("train", run.store.name, name, *words)


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if not isinstance(value, list | tuple) else f"[{', '.join(map(str, value))}]"
