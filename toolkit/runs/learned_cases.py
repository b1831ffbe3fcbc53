"""The cases that an estimator of Dice learns from, in the folder of a run: those that the run left out."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from attunet.confidence.estimator import LearnedCase
from attunet.errors import InputError
from attunet.fields import Fields, JsonObject, read_json
from attunet.runs.load_run import TrainedRun
from attunet.runs.run_folder import DEPTH, folders_with
from attunet.store import Store
from attunet.system.atomic_files import write_text
from attunet.volumes.spec import Postprocessing

FILE = "confidence_cases.json"
SCHEMA = 2


@dataclass(frozen=True)
class ObservedModel:
    """A model whose predictions of held-out cases an estimator learns from."""

    checkpoint: str  # its SHA-256
    store: str  # SHA-256 of the manifest that the cases, their masks and their patients are of
    classes: tuple[str, ...]
    preprocessing: str  # SHA-256 of its fields
    postprocessing: str  # in words; the Dice is that of the label maps after it
    model: JsonObject  # the section `[model]` of the run's configuration

    @classmethod
    def of_members(cls, run: TrainedRun, store: Store, postprocessing: Postprocessing) -> list["ObservedModel"]:
        """One for each different network of an ensemble; of a single run one."""
        return [
            cls(
                run.checkpoint_sha256[0],
                store.sha256,
                run.classes.names,
                run.spec.sha256,
                postprocessing.words,
                asdict(section),
            )
            for section in run.sections
        ]

    def to_json(self) -> JsonObject:
        return {"schema": SCHEMA, **asdict(self), "classes": list(self.classes)}

    @classmethod
    def from_json(cls, at: Fields) -> "ObservedModel":
        """Raises InputError for anything that `to_json` would not have written."""
        at.require("schema", lambda v: v == SCHEMA, f"the schema {SCHEMA} of this attunet")
        return cls(
            at.text("checkpoint"),
            at.text("store"),
            tuple(at.text_list("classes")),
            at.text("preprocessing"),
            at.text("postprocessing"),
            dict(at.inner("model").data),
        )

    def difference(self, other: "ObservedModel") -> str:
        """The first thing besides the checkpoint in which two differ, in words; empty if there is none."""
        for name in ("classes", "preprocessing", "model", "postprocessing", "store"):
            if getattr(self, name) != getattr(other, name):
                words = {"model": "network", "postprocessing": "post-processing", "store": "data set"}
                return words.get(name, name)
        return ""


def write_learned_cases(run: Path, model: ObservedModel, cases: Mapping[str, LearnedCase]) -> None:
    content = {**model.to_json(), "cases": {name: case.to_json() for name, case in cases.items()}}
    write_text(run / FILE, json.dumps(content, allow_nan=False) + "\n")


def read_learned_cases(run: Path) -> tuple[ObservedModel, dict[str, LearnedCase]]:
    """The cases of a run, by name. Raises InputError for a file that is missing or not of `write_learned_cases`."""
    at = read_json(run / FILE)
    model, cases = ObservedModel.from_json(at), at.inner("cases")
    num_organs = len(model.classes) - 1
    return model, {name: LearnedCase.from_json(cases.inner(name), num_organs) for name in cases.data}


def is_learned(run: Path, model: ObservedModel) -> bool:
    """True if the file is there and of this checkpoint, store and post-processing."""
    try:
        return read_learned_cases(run)[0] == model
    except InputError:
        return False


def learned_runs(folder: Path) -> Iterator[Path]:
    return folders_with(FILE, folder, DEPTH + 1)  # RECIPE/MODEL/seed-S/fold-K of a cross-validation
