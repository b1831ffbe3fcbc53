"""Comparison of an artefact with its checkpoint: Dice and agreement on whole volumes of the source, on the native grid.

The artefact is accepted or refused on label maps before post-processing. Keeping the largest component can move a whole
organ for the sake of a few voxels, so Dice after post-processing is reported and not judged.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np

from attunet.classes import Classes
from attunet.errors import RunError
from attunet.evaluate_case import CaseEvaluation
from attunet.export.artefact.dice_at_export import DiceAtExport
from attunet.metrics.aggregate import case_means, mean, nan_to_null, summarize
from attunet.metrics.overlap import confusion, dice_from_confusion, pixel_accuracy
from attunet.metrics.significance import patient_interval

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tolerance:
    """Largest difference from the checkpoint before post-processing."""

    mean: float  # in mean Dice over the cases
    case: float  # in mean Dice of any one case
    agreement: float  # least Dice between the artefact's and the checkpoint's label maps, all cases together


TOLERANCES = {
    "fp32": Tolerance(mean=0.0005, case=0.0025, agreement=0.999),
    "fp16": Tolerance(mean=0.001, case=0.005, agreement=0.99),
    "int8": Tolerance(mean=0.002, case=0.01, agreement=0.95),
}

# Case -> Dice of the foreground classes, float64 (K - 1,), NaN for a class in neither label map
Scores = dict[str, np.ndarray]


@dataclass
class Parity:
    """Dice of the checkpoint and of the artefact, before (`raw`) and after (`finished`) post-processing."""

    classes: Classes
    seen: Literal["held out", "training"]
    patients: Mapping[str, str]  # by case
    agreement: np.ndarray  # voxel counts int64 `(K, K)`, raw, of all cases: rows the checkpoint, columns the artefact
    checkpoint_raw: Scores = field(default_factory=dict)
    artefact_raw: Scores = field(default_factory=dict)
    checkpoint_finished: Scores = field(default_factory=dict)
    artefact_finished: Scores = field(default_factory=dict)

    def add(self, reference: CaseEvaluation, candidate: CaseEvaluation) -> str:
        """Add a case as the checkpoint and as the artefact segments it; gives both means as text."""
        name, means = reference.case.name, []
        for result, raw, finished in (
            (reference, self.checkpoint_raw, self.checkpoint_finished),
            (candidate, self.artefact_raw, self.artefact_finished),
        ):
            raw[name] = dice_from_confusion(result.case.confusion(result.raw))[1:]
            finished[name] = dice_from_confusion(result.confusion)[1:]
            means.append("no class" if np.isnan(score := mean(finished[name])) else f"{score:.4f}")
        self.agreement += confusion(candidate.raw, reference.raw, len(self.classes))
        return f"{name}: checkpoint {means[0]}, artefact {means[1]}"

    def refuse_if_different(self, precision: str) -> None:
        """Raises RunError with the figures for a difference beyond the tolerance; warns of jumps in post-processing."""
        allowed, raw = TOLERANCES[precision], _differences(self.artefact_raw, self.checkpoint_raw)
        if not raw:
            raise RunError("export: no case has a foreground class to compare the artefact on; no file was written")
        agreement = self.agreement_dice
        average, worst = mean(raw.values()), max(raw, key=lambda case: abs(raw[case]))
        if abs(average) > allowed.mean or abs(raw[worst]) > allowed.case or agreement < allowed.agreement:
            raise RunError(
                f"export: the {precision} artefact disagrees with its checkpoint on {len(raw)} {self.seen} cases, "
                f"before post-processing: mean Dice {_mean(self.artefact_raw):.4f} against "
                f"{_mean(self.checkpoint_raw):.4f} (difference {average:+.4f}, allowed {allowed.mean}; in case {worst} "
                f"{raw[worst]:+.4f}, allowed {allowed.case}); Dice between their label maps {agreement:.4f}, at least "
                f"{allowed.agreement} is needed; no file was written"
            )
        for case, difference in _differences(self.artefact_finished, self.checkpoint_finished).items():
            if abs(difference) > allowed.case:
                logger.warning(
                    f"{case}: post-processing moves the artefact's Dice by {difference:+.4f} from the checkpoint's, "
                    f"although their label maps before it differ by {raw.get(case, 0.0):+.4f}: a connected part of "
                    "this case is on the edge of being kept"
                )

    @property
    def agreement_dice(self) -> float:
        """Dice of the label maps before post-processing: mean over the foreground classes; 1 where both have none."""
        agreement = mean(dice_from_confusion(self.agreement)[1:])
        return 1.0 if np.isnan(agreement) else agreement

    def to_json(self) -> DiceAtExport:
        """`dice_at_export` of the metadata."""
        table = summarize(self.artefact_finished, self.classes.foreground)
        values: DiceAtExport = {
            "cases": self.seen,
            "artefact": table["mean"],
            "checkpoint": _mean(self.checkpoint_finished),
            "per_class": table["per_class"],
            "per_case": table["per_case"],
            "ci95": patient_interval(case_means(self.artefact_finished), self.patients),
            "before_postprocessing": {
                "artefact": _mean(self.artefact_raw),
                "checkpoint": _mean(self.checkpoint_raw),
                "agreement": self.agreement_dice,
                "equal_voxels": pixel_accuracy(self.agreement),
            },
        }
        return nan_to_null(cast(DiceAtExport, _rounded(values)))


def _differences(artefact: Scores, checkpoint: Scores) -> dict[str, float]:
    """Artefact minus checkpoint for each case, over the classes that both have a Dice for."""
    means = case_means({case: artefact[case] - checkpoint[case] for case in artefact})
    return {case: value for case, value in means.items() if not np.isnan(value)}


def _mean(scores: Scores) -> float:
    return mean(case_means(scores).values())


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, 6) if isinstance(value, float) else value
