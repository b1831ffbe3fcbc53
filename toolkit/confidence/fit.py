"""A monotone linear fit from features to Dice, and its check by leaving patients out.

The fit is linear between logarithms: that of 1 - Dice, and those of the features, signed so that more is worse. No
weight is negative, so a feature that gets worse never raises the estimate. Every organ has its own mean; weights are
shared by all organs.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from attunet.confidence.features import CaseFeatures, OrganFeatures
from attunet.fields import Fields, JsonObject, Rule

FLOOR = 0.01  # is added to 1 - Dice and to shares before their logarithm: differences below it mean nothing
RIDGE = 0.1  # weight of the squared coefficients, per row
NAMES = ("expected_dice", "entropy", "margin", "size", "parts", "largest_part", "distance", "disagreement")
LEVEL = 0.8  # share of the true values that the range is to hold
MAX_PARTS = 20  # patients are left out one by one up to this number, in so many groups beyond it


@dataclass(frozen=True)
class Row:
    """A predicted organ (its index among the foreground classes) of a held-out case, with its true Dice."""

    patient: str
    organ: int
    case: CaseFeatures
    dice: float

    @property
    def features(self) -> OrganFeatures:
        one = self.case.organs[self.organ]
        assert one is not None
        return one


@dataclass(frozen=True)
class OrganFit:
    """One foreground class: the median logarithm of its size, means of its features and of log(1 - Dice + FLOOR)."""

    log_size: float
    origin: tuple[float, ...]
    mean: float

    @classmethod
    def from_json(cls, at: Fields) -> "OrganFit":
        """Raises InputError for anything that `dataclasses.asdict` of one would not give."""
        return cls(
            log_size=at.get("log_size", Rule(float, -100, 100)),
            origin=at.get("origin", Rule(float, -1e6, 1e6, length=len(NAMES))),
            mean=at.get("mean", Rule(float, -100, 100)),
        )


@dataclass(frozen=True, eq=False)
class LinearFit:
    """Weights of the features, all of one unit: a feature is divided by its deviation in `scale` first.

    Args:
        weights, scale: `(F,)`, for `NAMES`.
        organs: for each foreground class; None where it was not learned.
    """

    weights: np.ndarray
    scale: np.ndarray
    organs: tuple[OrganFit | None, ...]

    def log_error(self, case: CaseFeatures, organ: int) -> float | None:
        """Estimated log(1 - Dice + FLOOR) of a predicted organ; None if it was not learned."""
        if (learned := self.organs[organ]) is None:
            return None
        values = (_values(case, organ, learned.log_size) - learned.origin) / self.scale
        return float(learned.mean + values @ self.weights)

    def to_json(self) -> JsonObject:
        numbers = {"weights": self.weights.tolist(), "scale": self.scale.tolist()}
        return {"features": list(NAMES), **numbers, "organs": [organ and asdict(organ) for organ in self.organs]}

    @classmethod
    def from_json(cls, at: Fields, num_organs: int) -> "LinearFit":
        """Raises InputError for what `to_json` would not have written, or another number of foreground classes."""
        at.require("features", lambda v: v == list(NAMES), f"the features {', '.join(NAMES)}")
        weights = at.get("weights", Rule(float, 0, 1e3, length=len(NAMES)))
        scale = at.get("scale", Rule(float, 1e-9, 1e9, length=len(NAMES)))
        organs = at.optional_rows("organs", OrganFit.from_json, num_organs)
        return cls(np.array(weights), np.array(scale), tuple(organs))


def fit(rows: Sequence[Row], num_organs: int) -> LinearFit:
    """The fit of some rows, all with the same weight."""
    from scipy.optimize import nnls  # is slow to import, and prediction does without

    organs: list[OrganFit | None] = [None] * num_organs
    values, errors = np.zeros((len(rows), len(NAMES))), np.array([log_error_of(row.dice) for row in rows])
    for organ in sorted({row.organ for row in rows}):
        chosen = [index for index, row in enumerate(rows) if row.organ == organ]
        log_size = float(np.median([math.log(rows[index].features.size) for index in chosen]))
        values[chosen] = [_values(rows[index].case, organ, log_size) for index in chosen]
        origin, mean = values[chosen].mean(axis=0), errors[chosen].mean()
        values[chosen] -= origin
        errors[chosen] -= mean
        organs[organ] = OrganFit(log_size, tuple(origin.tolist()), float(mean))
    spread = np.sqrt(np.mean(np.square(values), axis=0)) if len(rows) else np.zeros(len(NAMES))
    scale = np.where(spread > 1e-6, spread, 1.0)
    ridge = math.sqrt(RIDGE * max(1, len(rows))) * np.eye(len(NAMES))
    weights, _ = nnls(np.vstack([values / scale, ridge]), np.concatenate([errors, np.zeros(len(NAMES))]))
    weights[spread <= 1e-6] = 0.0
    return LinearFit(weights, scale, tuple(organs))


def log_error_of(dice: float) -> float:
    return math.log(1 - dice + FLOOR)


def dice_of(log_error: float) -> float:
    return min(1.0, max(0.0, 1 + FLOOR - math.exp(min(log_error, 50.0))))


@dataclass(frozen=True)
class LeftOut:
    """A row and its estimate by a fit without its patient, as a logarithm."""

    row: Row
    log_error: float

    @property
    def residual(self) -> float:
        return log_error_of(self.row.dice) - self.log_error


def leave_out(rows: Sequence[Row], patients: Collection[str], num_organs: int) -> list[LeftOut]:
    """The rows of some patients with estimates by a fit of the others, but for organs that the others lack."""
    others = fit([row for row in rows if row.patient not in patients], num_organs)
    estimates = ((row, others.log_error(row.case, row.organ)) for row in rows if row.patient in patients)
    return [LeftOut(row, estimate) for row, estimate in estimates if estimate is not None]


def left_out_residuals(rows: Sequence[Row], num_organs: int) -> list[float]:
    """The residual of every row, estimated by a fit without its patient."""
    patients = sorted({row.patient for row in rows})
    count = min(MAX_PARTS, len(patients))
    groups = (set(patients[number::count]) for number in range(count))
    return [one.residual for group in groups for one in leave_out(rows, group, num_organs)]


def range_of_residuals(residuals: Sequence[float]) -> tuple[float, float]:
    """Residuals between which a new one lies with probability `LEVEL`: order statistics, wider the fewer there are."""
    ordered = np.sort(np.asarray(residuals, dtype=np.float64))
    below = math.floor((len(ordered) + 1) * (1 - LEVEL) / 2 + 1e-9)
    index = max(0, below - 1)
    return float(ordered[index]), float(ordered[len(ordered) - 1 - index])


def _values(case: CaseFeatures, organ: int, log_size: float) -> np.ndarray:
    one = case.organs[organ]
    assert one is not None
    return np.array(
        [
            math.log(1 - one.expected_dice + FLOOR),
            math.log(one.entropy + FLOOR),
            math.log(1 - one.margin + FLOOR),
            abs(math.log(one.size) - log_size),
            math.log(one.parts),
            math.log(1 - one.largest_part + FLOOR),
            min(case.distance, 1.0),  # no learned case is outside of the ranges
            math.log((one.disagreement or 0.0) + FLOOR),
        ]
    )
