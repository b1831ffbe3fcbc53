"""The check of a fit on patients that it did not see, and the sentences about it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attunet.confidence.fit import LeftOut, Row, dice_of, leave_out, left_out_residuals, range_of_residuals
from attunet.fields import Fields, Rule


@dataclass(frozen=True)
class Check:
    """Figures of the estimates of each patient by fits to the other patients.

    Args:
        correlation: Pearson's, of estimated with true Dice over all organs and cases; None where either does not vary.
        correlation_within: the same after the mean of each organ was subtracted from both.
        coverage: share of the true values within their range.
        mean_error: mean absolute error of the estimate.
        mean_error_without: that of the mean Dice of the organ over the other patients, which needs no features.
        marked_of_poor: share of the organs with a Dice below the threshold whose estimate is below it; None without
            any.
        marked_of_good: share of the others whose estimate is below it.
    """

    correlation: float | None
    correlation_within: float | None
    coverage: float
    mean_error: float
    mean_error_without: float
    marked_of_poor: float | None
    marked_of_good: float | None

    @classmethod
    def from_json(cls, at: Fields) -> "Check":
        """Raises InputError for anything that `dataclasses.asdict` of one would not give."""
        return cls(**{name: at.get(name, rule) for name, rule in RULES.items()})

    def describe(self) -> str:
        both = (self.correlation, self.correlation_within)
        correlation, within = ("not defined" if value is None else f"{value:.2f}" for value in both)
        return (
            f"correlation {correlation} (within organs {within}), the range holds {self.coverage:.0%} of the true "
            f"values, mean error {self.mean_error:.3f} ({self.mean_error_without:.3f} with the organ's mean alone)"
        )


RULES = {
    **dict.fromkeys(("correlation", "correlation_within"), Rule(float, -1, 1, null=True)),
    **dict.fromkeys(("coverage", "mean_error", "mean_error_without"), Rule(float, 0, 1)),
    **dict.fromkeys(("marked_of_poor", "marked_of_good"), Rule(float, 0, 1, null=True)),
}


def check(rows: Sequence[Row], num_organs: int, threshold: float) -> Check:
    """Leaves each of at least two patients out: fit and range come from the others, in turn left out for the residuals.

    Organs with an estimated Dice below the threshold count as marked.
    """
    left_out: list[LeftOut] = []
    plain, covered = [], []
    for patient in sorted({row.patient for row in rows}):
        others = [row for row in rows if row.patient != patient]
        low, high = range_of_residuals(left_out_residuals(others, num_organs))
        for one in leave_out(rows, {patient}, num_organs):
            left_out.append(one)
            covered.append(low <= one.residual <= high)
            plain.append(float(np.mean([row.dice for row in others if row.organ == one.row.organ])))
    true, organs = np.array([one.row.dice for one in left_out]), np.array([one.row.organ for one in left_out])
    estimated = np.array([dice_of(one.log_error) for one in left_out])
    is_poor, is_marked = true < threshold, estimated < threshold
    return Check(
        correlation=_correlation(true, estimated),
        correlation_within=_correlation(_centred(true, organs), _centred(estimated, organs)),
        coverage=float(np.mean(covered)),
        mean_error=float(np.mean(np.abs(true - estimated))),
        mean_error_without=float(np.mean(np.abs(true - plain))),
        marked_of_poor=float(is_marked[is_poor].mean()) if is_poor.any() else None,
        marked_of_good=float(is_marked[~is_poor].mean()) if not is_poor.all() else None,
    )


def _centred(values: np.ndarray, organs: np.ndarray) -> np.ndarray:
    means = {organ: values[organs == organ].mean() for organ in np.unique(organs)}
    return values - np.array([means[organ] for organ in organs])


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    if len(a) < 3 or a.std() < 1e-9 or b.std() < 1e-9:
        return None
    return float(np.clip(np.corrcoef(a, b)[0, 1], -1, 1))
