"""Contents of a report, read from the folder of an evaluation or of a cross-validation into one form."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from attunet.benchmarks.evaluation.details import CaseDetails, CurvePoint, ModelDetails
from attunet.benchmarks.evaluation.saved_cases import FOLDER, load_arrays
from attunet.classes import Classes
from attunet.metrics.aggregate import mean
from attunet.metrics.results import MethodComparison, Metric, ModelComparison, Score, Speed, TimeToAccuracy
from attunet.system.environment import Environment

NEGLIGIBLE = 0.005  # what rounding in another format changes is far less


@dataclass(frozen=True, eq=False)
class ModelRow:
    """One model (of a cross-validation: one network trained by one recipe)."""

    label: str
    scores: Mapping[Metric, Score]
    speed: Speed | None = None  # measured by an evaluation, None for a cross-validation
    confusion: np.ndarray | None = None
    seen: frozenset[str] = frozenset()
    predictions: Mapping[str, Path] = field(default_factory=dict)  # case -> file with its label map
    attention: Mapping[str, Path] = field(default_factory=dict)  # case -> file with the maps of the gates
    curves: Mapping[str, list[CurvePoint]] = field(default_factory=dict)
    time_to_accuracy: TimeToAccuracy | None = None
    details: ModelDetails | None = None

    def case_mean(self, case: str, metric: Metric = "dice") -> float:
        """Mean over the classes of one case; NaN where no class is defined."""
        return mean(np.nan if v is None else v for v in self.scores[metric]["per_case"].get(case, {}).values())

    def num_scored(self, metric: Metric, name: str | None = None) -> int:
        """Cases that a mean is over: those with a score of a class, or of any class."""
        rows = {case: row for case, row in self.scores[metric]["per_case"].items() if case not in self.seen}
        if name is not None:
            return sum(row.get(name) is not None for row in rows.values())
        return sum(not np.isnan(self.case_mean(case, metric)) for case in rows)


@dataclass(frozen=True, eq=False)
class Contents:
    kind: str  # "evaluation" or "cross-validation"
    folder: Path
    store: str
    classes: Classes
    cases: tuple[str, ...]  # the worst mean Dice over all models first
    models: tuple[ModelRow, ...]
    comparisons: tuple[ModelComparison | MethodComparison, ...]
    environment: Environment
    case_details: Mapping[str, CaseDetails]
    commands: tuple[str, ...]  # that made it
    about: str = ""

    def case_folder(self, case: str) -> Path:
        return self.folder / FOLDER / case

    @cached_property
    def twins(self) -> dict[str, str]:
        """Models that give the label maps of an earlier one, label -> the earlier one's: one network in two formats."""
        twins: dict[str, str] = {}
        for number, model in enumerate(self.models):
            for earlier in self.models[:number]:
                if not {model.label, earlier.label} & twins.keys() and _same_labels(model, earlier):
                    twins[model.label] = earlier.label
        return twins


def _same_labels(first: ModelRow, second: ModelRow) -> bool:
    """True if the kept label maps differ in a negligible share of their foreground."""
    cases = list(first.predictions)
    if not cases or cases != list(second.predictions):
        return False
    differing = foreground = 0
    for case in cases:
        a, b = (load_arrays(model.predictions[case])["prediction"] for model in (first, second))
        differing += int((a != b).sum())
        foreground += int(((a > 0) | (b > 0)).sum())
        if case == cases[0] and differing > 2 * NEGLIGIBLE * foreground:
            return False
    return differing <= NEGLIGIBLE * foreground
