"""The estimator of Dice in an artefact, learned on the held-out cases of a cross-validation, and its check."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from attunet.confidence.calibration import Calibration, CalibrationCounts, calibrate
from attunet.confidence.check import Check, check
from attunet.confidence.estimate import CaseConfidence, OrganEstimate
from attunet.confidence.features import CaseFeatures
from attunet.confidence.fit import LEVEL, LinearFit, Row, dice_of, fit, left_out_residuals, range_of_residuals
from attunet.errors import Finding
from attunet.fields import Fields, JsonObject, Rule
from attunet.volumes.training_ranges import OUTSIDE

MIN_PATIENTS = 10  # fewer residuals have no order statistics that hold 80 %
MIN_OF_ORGAN = 5  # held-out predictions of an organ
POOR = 0.1  # share of the held-out Dice values that lie below the threshold, unless the user sets it


@dataclass(frozen=True)
class LearnedCase:
    """A held-out case of a cross-validation: its patient, the features of its prediction, and its true Dice.

    `dice` is None for a foreground class without one. `had` says whether the reference has the class, None where it was
    not drawn. `calibration` is None where not every class was drawn.
    """

    patient: str
    features: CaseFeatures
    dice: tuple[float | None, ...]
    had: tuple[bool | None, ...]
    calibration: CalibrationCounts | None = None

    def to_json(self) -> JsonObject:
        return {
            "patient": self.patient,
            "features": asdict(self.features),
            "dice": list(self.dice),
            "had": list(self.had),
            "calibration": self.calibration and self.calibration.to_json(),
        }

    @classmethod
    def from_json(cls, at: Fields, num_organs: int) -> "LearnedCase":
        """Raises InputError for what `to_json` would not have written, or another number of foreground classes."""
        features = CaseFeatures.from_json(at.inner("features"), num_organs)
        dice = at.each("dice", Rule(float, 0, 1, null=True), num_organs)
        had = at.each("had", Rule(bool, null=True), num_organs)
        return cls(at.text("patient"), features, dice, had, at.optional("calibration", CalibrationCounts.from_json))


@dataclass(frozen=True, eq=False)
class Estimator:
    """Learned from held-out cases by `learn`, applied by `estimate`.

    Args:
        num_patients: whose held-out cases it was learned from. num_cases: predictions of them, several where there were
            several seeds.
        calibration: of the probabilities; None with too few patients.
        cannot: the reason why there are no estimates; empty where there are.
        fit: None if there are no estimates, as are `check` and `threshold`.
        residuals: the lower and upper end of the range, relative to the estimate's logarithm.
        threshold: of Dice; organs with a lower estimate are marked.
        expected: for each foreground class, whether every held-out case in which it was drawn had it.
    """

    num_patients: int
    num_cases: int
    calibration: Calibration | None
    cannot: str = ""
    fit: LinearFit | None = None
    residuals: tuple[float, float] = (0.0, 0.0)
    check: Check | None = None
    threshold: float | None = None
    expected: tuple[bool, ...] = ()

    @property
    def temperature(self) -> float:
        """Divisor of the logits before the softmax."""
        return self.calibration.temperature if self.calibration else 1.0

    def estimate(
        self,
        features: CaseFeatures,
        names: Sequence[str],
        findings: Sequence[Finding] = (),
        *,
        present: Sequence[bool] | None = None,
        threshold: float | None = None,
    ) -> CaseConfidence:
        """The estimates of a case, by the features of its prediction and the names of the foreground classes.

        Findings about the training's ranges mark the case, since estimates say little outside of them. `present` says
        for each class whether the label map has it: on its own grid and after post-processing a class of few voxels may
        be lost, or found; by default those with features. `threshold` replaces the learned one.

        Example:
            >>> estimator.estimate(observer.features(distance), classes.foreground).review  # doctest: +SKIP
        """
        reasons = [finding.text for finding in findings if finding.rule.startswith(OUTSIDE)]
        if self.fit is None:
            return CaseConfidence(bool(reasons), (*reasons, f"cannot tell: {self.cannot}"), LEVEL, None, {})
        limit = self.threshold if threshold is None else threshold
        there = [organ is not None for organ in features.organs] if present is None else present
        organs = {name: self._organ(features, index, there[index], limit) for index, name in enumerate(names)}
        marks = [f"{name}: {organ.reason}" for name, organ in organs.items() if organ.reason]
        review = bool(reasons) or any(organ.review for organ in organs.values())
        return CaseConfidence(review, (*reasons, *marks), LEVEL, limit, organs)

    def _organ(self, features: CaseFeatures, index: int, is_present: bool, threshold: float | None) -> OrganEstimate:
        assert self.fit is not None
        if is_present and features.organs[index] is None:
            return OrganEstimate(None, None, None, self.expected[index], "cannot tell: too small on the network's grid")
        if not is_present:
            missing = self.expected[index]
            reason = "not in the label map, and no case learned from lacked it" if missing else ""
            return OrganEstimate(None, None, None, missing, reason)
        error = self.fit.log_error(features, index)
        if error is None:
            return OrganEstimate(None, None, None, False, "cannot tell: too few held-out cases had it")
        low, high = self.residuals
        dice = dice_of(error)
        is_poor = threshold is not None and dice < threshold
        reason = f"estimated Dice {dice:.2f} is below {threshold:.2f}" if is_poor else ""
        return OrganEstimate(dice, dice_of(error + high), dice_of(error + low), is_poor, reason)

    def describe(self) -> str:
        base = f"learned on {self.num_cases} held-out predictions of {self.num_patients} patients"
        accuracy = self.check.describe() if self.check else f"cannot tell: {self.cannot}"
        if self.calibration is None:
            return f"{base}: {accuracy}"
        errors = f"{self.calibration.error_before:.4f} before and {self.calibration.error_after:.4f} after"
        scaled = f"temperature {self.temperature:.2f}, expected calibration error {errors}, patients left out"
        return f"{base}: {accuracy}; {scaled}"

    def to_json(self) -> JsonObject:
        return {
            "num_patients": self.num_patients,
            "num_cases": self.num_cases,
            "temperature": self.temperature,
            "calibration": self.calibration and asdict(self.calibration),
            "cannot": self.cannot,
            "fit": self.fit and self.fit.to_json(),
            "residuals": list(self.residuals),
            "check": self.check and asdict(self.check),
            "threshold": self.threshold,
            "expected": list(self.expected),
        }

    @classmethod
    def from_json(cls, at: Fields, num_organs: int) -> "Estimator":
        """Raises InputError for what `to_json` would not have written, or another number of foreground classes."""
        linear = at.optional("fit", lambda inner: LinearFit.from_json(inner, num_organs))
        low, high = at.get("residuals", Rule(float, -100, 100, length=2, ordered=True))
        return cls(
            num_patients=at.whole("num_patients"),
            num_cases=at.whole("num_cases"),
            calibration=at.optional("calibration", Calibration.from_json),
            cannot=str(at.get("cannot", Rule(str))),
            fit=linear,
            residuals=(low, high),
            check=Check.from_json(at.inner("check")) if linear else None,
            threshold=at.get("threshold", Rule(float, 0, 1, null=True)),
            expected=at.each("expected", Rule(bool), num_organs if linear else None),
        )


def learn(cases: Sequence[LearnedCase]) -> Estimator:
    """An estimator from held-out cases; it says that it cannot tell where patients are too few."""
    num_patients = len({case.patient for case in cases})
    base = Estimator(num_patients, len(cases), calibrate(_counts_by_patient(cases)))
    if num_patients < MIN_PATIENTS:
        reason = f"it was learned on {num_patients} patients, at least {MIN_PATIENTS} are needed"
        return replace(base, cannot=reason)
    num_organs = len(cases[0].dice)
    rows = [row for organ in range(num_organs) for row in _rows(cases, organ)]
    if not rows:
        return replace(base, cannot="no organ was predicted in enough held-out cases")
    threshold = min(0.99, round(float(np.quantile([row.dice for row in rows], POOR)), 2))  # below 1 is every estimate
    return replace(
        base,
        fit=fit(rows, num_organs),
        residuals=range_of_residuals(left_out_residuals(rows, num_organs)),
        check=check(rows, num_organs, threshold),
        threshold=threshold,
        expected=tuple({case.had[organ] for case in cases} - {None} == {True} for organ in range(num_organs)),
    )


def _rows(cases: Sequence[LearnedCase], organ: int) -> list[Row]:
    """The predictions of an organ with a Dice; none if they are of too few patients."""
    rows = [
        Row(case.patient, organ, case.features, dice)
        for case in cases
        if case.features.organs[organ] is not None and (dice := case.dice[organ]) is not None
    ]
    return rows if len({row.patient for row in rows}) >= MIN_OF_ORGAN else []


def _counts_by_patient(cases: Sequence[LearnedCase]) -> list[CalibrationCounts]:
    by_patient: dict[str, CalibrationCounts] = {}
    for case in cases:
        if case.calibration is not None:
            by_patient[case.patient] = by_patient.get(case.patient, CalibrationCounts.none()) + case.calibration
    return [by_patient[patient] for patient in sorted(by_patient)]
