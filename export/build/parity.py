"""Comparison of an artefact with its checkpoint: Dice and agreement on whole volumes of the source, on the native grid.

The artefact is accepted or refused on label maps before post-processing. Keeping the largest component can move a whole
organ for the sake of a few voxels, so Dice after post-processing is reported and not judged.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np

from attunet.classes import Classes
from attunet.errors import RunError
from attunet.evaluate_case import evaluate_case, read_labelled_case
from attunet.export.artefact.dice_at_export import DiceAtExport
from attunet.metrics.aggregate import case_means, mean, nan_to_null, summarize
from attunet.metrics.overlap import confusion, dice_from_confusion, pixel_accuracy
from attunet.store import Store
from attunet.volumes.model import Model

logger = logging.getLogger(__name__)

SLOW_SECONDS = 10.0  # duration from which the log announces how long the check will take


@dataclass(frozen=True)
class Tolerance:
    """Largest difference from the checkpoint before post-processing.

    Args:
        mean: difference in mean Dice over the cases. case: difference in mean Dice of any one case.
        agreement: least Dice between the artefact's and the checkpoint's label maps, all cases together.
    """

    mean: float
    case: float
    agreement: float


TOLERANCES = {
    "fp32": Tolerance(mean=0.0005, case=0.0025, agreement=0.999),
    "fp16": Tolerance(mean=0.001, case=0.005, agreement=0.99),
    "int8": Tolerance(mean=0.002, case=0.01, agreement=0.95),
}

# Case -> Dice of the foreground classes, float64 (K - 1,), NaN for a class in neither label map
Scores = dict[str, np.ndarray]


@dataclass
class Parity:
    """Dice of the checkpoint and of the artefact, before (`raw`) and after (`finished`) post-processing.

    Args:
        seen: "held out" if the training left the cases out.
        agreement: voxel counts int64 `(K, K)` before post-processing, all cases together: rows the checkpoint, columns
            the artefact.
    """

    classes: Classes
    seen: Literal["held out", "training"]
    agreement: np.ndarray
    checkpoint_raw: Scores = field(default_factory=dict)
    artefact_raw: Scores = field(default_factory=dict)
    checkpoint_finished: Scores = field(default_factory=dict)
    artefact_finished: Scores = field(default_factory=dict)

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
            "before_postprocessing": {
                "artefact": _mean(self.artefact_raw),
                "checkpoint": _mean(self.checkpoint_raw),
                "agreement": self.agreement_dice,
                "equal_voxels": pixel_accuracy(self.agreement),
            },
        }
        return nan_to_null(cast(DiceAtExport, _rounded(values)))


def measure_parity(
    checkpoint: Model,
    artefact: Model,
    store: Store,
    cases: Sequence[str],
    *,
    seen: Literal["held out", "training"],
    max_seconds: float | None = None,
) -> Parity:
    """Segment cases with a checkpoint and with its artefact.

    Args:
        checkpoint: with the pre- and post-processing of the artefact.
        cases: labelled cases of the store.
        seen: "held out" if the training left these cases out, else "training".
        max_seconds: duration above which fewer cases are compared, at least one; None compares all.

    Raises:
        InputError: for a case without labels, and for source files that are missing or changed.

    Example:
        >>> measure_parity(checkpoint, segmenter, store, run.held_out, seen="held out").agreement_dice  # doctest: +SKIP
    """
    parity = Parity(store.classes, seen, np.zeros((len(store.classes),) * 2, dtype=np.int64))
    began = time.monotonic()
    for number, name in enumerate(cases, start=1):
        if number == 2:
            cases = _cases_in_time(cases, time.monotonic() - began, max_seconds)
        if number > len(cases):
            break
        case = read_labelled_case(store, name)
        reference, candidate = (evaluate_case(model, case) for model in (checkpoint, artefact))
        for result, raw, finished in (
            (reference, parity.checkpoint_raw, parity.checkpoint_finished),
            (candidate, parity.artefact_raw, parity.artefact_finished),
        ):
            raw[name] = dice_from_confusion(case.confusion(result.raw))[1:]
            finished[name] = dice_from_confusion(result.confusion)[1:]
        parity.agreement += confusion(candidate.raw, reference.raw, len(store.classes))
        means = (mean(scores[name]) for scores in (parity.checkpoint_finished, parity.artefact_finished))
        scores = ["no class" if np.isnan(value) else f"{value:.4f}" for value in means]
        logger.info(f"  {number}/{len(cases)} {name}: checkpoint {scores[0]}, artefact {scores[1]}")
    return parity


def _cases_in_time(cases: Sequence[str], seconds: float, max_seconds: float | None) -> Sequence[str]:
    """The cases that fit into the time if each takes as long as the first one took."""
    kept = cases if max_seconds is None else cases[: max(1, int(max_seconds / max(seconds, 1e-3)))]
    if seconds * len(kept) > SLOW_SECONDS or len(kept) < len(cases):
        number = "all" if len(kept) == len(cases) else f"{len(kept)} of"
        minutes = seconds * len(kept) / 60
        logger.info(f"  parity on {number} {len(cases)} cases takes about {minutes:.1f} minutes (--parity-cases)")
    return kept


def _differences(artefact: Scores, checkpoint: Scores) -> dict[str, float]:
    """Artefact minus checkpoint for each case, over the classes that both have a Dice for."""
    means = case_means({case: artefact[case] - checkpoint[case] for case in artefact})
    return {case: value for case, value in means.items() if not np.isnan(value)}


def _mean(scores: Scores) -> float:
    return mean(case_means(scores).values())


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return round(value, 6) if isinstance(value, float) else value
