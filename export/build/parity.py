"""Does the artefact segment as the checkpoint does? Judged in Dice on whole volumes, on the native grid, from the user's own files."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from attunet.classes import Classes
from attunet.errors import InputError, RunError
from attunet.metrics.overlap import confusion, dice_from_confusion
from attunet.store import Store
from attunet.volumes.predict import Network, predict_prepared
from attunet.volumes.slices import preprocess
from attunet.volumes.spec import Postprocessing, PreprocessSpec

logger = logging.getLogger(__name__)

# How far the mean Dice may be from the checkpoint's; one case may be five times as far.
MEAN_TOLERANCE = {"fp32": 0.0005, "fp16": 0.001, "int8": 0.002}
CASE_FACTOR = 5


@dataclass
class Parity:
    """Dice of the foreground classes by case, float64 (K - 1,), NaN for a class in neither label map."""

    classes: Classes
    seen: Literal["held out", "training"]
    checkpoint: dict[str, np.ndarray] = field(default_factory=dict)
    artefact: dict[str, np.ndarray] = field(default_factory=dict)

    def differences(self) -> dict[str, float]:
        """Artefact minus checkpoint in each case, over the classes that both have a Dice for."""
        both = {case: self.artefact[case] - self.checkpoint[case] for case in self.artefact}
        return {case: float(np.nanmean(d)) for case, d in both.items() if not np.isnan(d).all()}

    def refuse_if_apart(self, precision: str) -> None:
        """RunError with the figures where the artefact is further from the checkpoint than its precision allows."""
        allowed, differences = MEAN_TOLERANCE[precision], self.differences()
        if not differences:
            raise RunError("export: no case has a foreground class to judge the artefact by; no file was written")
        mean = sum(differences.values()) / len(differences)
        worst = max(differences, key=lambda case: abs(differences[case]))
        if abs(mean) <= allowed and abs(differences[worst]) <= CASE_FACTOR * allowed:
            return
        raise RunError(
            f"export: the {precision} artefact disagrees with its checkpoint on {len(differences)} {self.seen} cases: mean Dice "
            f"{_mean(self.artefact):.4f} against {_mean(self.checkpoint):.4f} (difference {mean:+.4f}, allowed {allowed}; in case {worst} "
            f"{differences[worst]:+.4f}, allowed {CASE_FACTOR * allowed:g}); no file was written"
        )

    def to_json(self) -> dict[str, Any]:
        """`dice_at_export` of the metadata."""
        stacked = np.stack(list(self.artefact.values()))
        with np.errstate(invalid="ignore"):
            counted = (~np.isnan(stacked)).sum(axis=0)
            per_class = np.where(counted, np.nansum(stacked, axis=0) / np.maximum(counted, 1), np.nan)
        return {
            "cases": self.seen,
            "artefact": _number(_mean(self.artefact)),
            "checkpoint": _number(_mean(self.checkpoint)),
            "per_class": self._named(per_class),
            "per_case": {case: self._named(values) for case, values in self.artefact.items()},
        }

    def _named(self, values: np.ndarray) -> dict[str, float | None]:
        return {name: _number(float(v)) for name, v in zip(self.classes.foreground, values, strict=True)}


def measure(
    store: Store,
    cases: Sequence[str],
    networks: dict[str, Network],
    *,
    spec: PreprocessSpec,
    seen: Literal["held out", "training"],
    postprocessing: Postprocessing,
    source: Path | None = None,
) -> Parity:
    """Dice of the two networks, `checkpoint` and `artefact`, on the cases' source files, prepared for both as `spec` says."""
    parity = Parity(store.classes, seen)
    num_classes = len(store.classes)
    for number, name in enumerate(cases, start=1):
        volume, truth = store.read_source(name, source)
        if truth is None:
            raise InputError(f"{store.path}: the case {name!r} has no labels to judge an artefact by")
        prepared = preprocess(volume, spec)
        for which, by_case in (("checkpoint", parity.checkpoint), ("artefact", parity.artefact)):
            indices = predict_prepared(networks[which], prepared, spec, postprocessing=postprocessing)
            by_case[name] = dice_from_confusion(confusion(indices, truth, num_classes))[1:]
        logger.info(
            f"  {number}/{len(cases)} {name}: checkpoint {_score(parity.checkpoint[name])}, artefact {_score(parity.artefact[name])}"
        )
    return parity


def _mean(by_case: dict[str, np.ndarray]) -> float:
    """Over the classes of a case, then over the cases."""
    cases = [float(np.nanmean(values)) for values in by_case.values() if not np.isnan(values).all()]
    return sum(cases) / len(cases) if cases else math.nan


def _score(values: np.ndarray) -> str:
    return "no class" if np.isnan(values).all() else f"{np.nanmean(values):.4f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
