"""What a table of scores does and does not show: intervals over patients, and paired comparisons of two models.

The patient is the unit throughout: the cases of one patient are averaged first, because they are not independent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from attunet.metrics.overlap import mean_of_defined

MIN_PATIENTS = 5  # below, resampling a handful of values says more about the handful than about the population
EXACT_UP_TO = 16  # patients: all 2**16 sign patterns are enumerated; beyond, SIGN_DRAWS are drawn
SIGN_DRAWS = 20_000


def per_patient(values: Mapping[str, float], patients: Mapping[str, str]) -> dict[str, float]:
    """Mean per patient of the values per case; patients without a defined value are left out.

    values: case name -> score, NaN where not defined; patients: case name -> patient.
    """
    by_patient: dict[str, list[float]] = {}
    for case, value in values.items():
        by_patient.setdefault(patients[case], []).append(value)
    means = {patient: float(mean_of_defined(np.array(scores))) for patient, scores in by_patient.items()}
    return {patient: mean for patient, mean in means.items() if not np.isnan(mean)}


def bootstrap_interval(values: np.ndarray, *, level: float = 0.95, draws: int = 10_000, seed: int = 0) -> tuple[float, float] | None:
    """Bootstrap interval of the mean; values: one per patient, (n,). None under MIN_PATIENTS values.

    Quantiles of resampled means are too narrow for small n (they use the deviation with n in the denominator, and a normal where
    Student's t belongs): of normal samples, 86 % of them cover the mean at n = 6 and 84 % at n = 5. So they are taken further out: the
    expanded percentile interval of Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 69 (2015).
    Of these 93 % do at n = 6 and 92 % at n = 5.
    """
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if n < MIN_PATIENTS:
        return None
    tail = special.ndtr(np.sqrt(n / (n - 1)) * special.stdtrit(n - 1, (1 - level) / 2))
    picks = np.random.default_rng(seed).integers(0, n, (draws, n))
    low, high = np.quantile(values[picks].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)


def sign_flip_p_value(differences: np.ndarray, *, draws: int = SIGN_DRAWS, seed: int = 0) -> float:
    """Two-sided permutation test of paired differences (n,), one per patient, against a mean of zero.

    If the models were exchangeable each difference could as well have the other sign; the p-value is the share of all sign
    patterns (up to EXACT_UP_TO patients; of random ones beyond) whose mean is at least as far from zero as the one seen.
    """
    differences = np.asarray(differences, dtype=np.float64)
    n = len(differences)
    if n == 0:
        return 1.0
    if n <= EXACT_UP_TO:
        signs = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    else:
        signs = 1 - 2 * np.random.default_rng(seed).integers(0, 2, (draws, n))
    seen = abs(differences.mean())
    as_far = np.abs(signs @ differences) / n >= seen * (1 - 1e-9)
    if n <= EXACT_UP_TO:
        return float(as_far.mean())
    return float((as_far.sum() + 1) / (draws + 1))  # the pattern seen is one of those that could have been drawn


@dataclass(frozen=True)
class PairedComparison:
    """`second` against `first` on the same patients; differences are second minus first, higher is better."""

    first: str
    second: str
    metric: str
    num_patients: int
    difference: float
    ci95: tuple[float, float] | None
    p_value: float | None

    @property
    def smallest_p_value(self) -> float:
        """What the permutation test could give at best with so many patients."""
        if self.num_patients == 0:
            return 1.0
        return 2.0 ** (1 - self.num_patients) if self.num_patients <= EXACT_UP_TO else 1 / (SIGN_DRAWS + 1)

    @property
    def words(self) -> str:
        """What the data show and what they do not, in one or two sentences."""
        return _words(self)

    def to_json(self) -> dict[str, Any]:
        return {
            "mean": None if np.isnan(self.difference) else self.difference,
            "ci95": list(self.ci95) if self.ci95 else None,
            "p_value": self.p_value,
            "smallest_p_value": self.smallest_p_value,
            "num_patients": self.num_patients,
        }


def compare_paired(
    first: Mapping[str, float | None],
    second: Mapping[str, float | None],
    patients: Mapping[str, str],
    *,
    names: tuple[str, str],
    metric: str = "Dice",
    seed: int = 0,
) -> PairedComparison:
    """Compare two models on the cases that both have a defined score for.

    first, second: case name -> score (higher is better), None or NaN where not defined; patients: case name -> patient.
    """
    shared = {case: b - a for case, a in first.items() if a is not None and (b := second.get(case)) is not None}
    differences = np.array(list(per_patient(shared, patients).values()))
    enough = len(differences) >= MIN_PATIENTS
    return PairedComparison(
        first=names[0],
        second=names[1],
        metric=metric,
        num_patients=len(differences),
        difference=float(mean_of_defined(differences)),
        ci95=bootstrap_interval(differences, seed=seed),
        p_value=sign_flip_p_value(differences, seed=seed) if enough else None,
    )


def _words(c: PairedComparison) -> str:
    if c.num_patients == 0:
        return f"{c.second} and {c.first} share no patient to be compared on."
    people = f"{c.num_patients} patient{'s' if c.num_patients > 1 else ''}"
    seen = f"{c.second} differs from {c.first} by {c.difference:+.4f} in mean {c.metric} over {people}"
    if c.ci95 is None or c.p_value is None:
        return f"{seen}. Under {MIN_PATIENTS} patients there is no interval and no test: this says nothing about other patients."
    low, high = c.ci95
    figures = f"(95 % interval {low:+.4f} to {high:+.4f}, permutation p = {c.p_value:.3g})"
    outside = low > 0 or high < 0
    if outside and c.p_value < 0.05:
        better, worse = (c.second, c.first) if c.difference > 0 else (c.first, c.second)
        return f"{seen} {figures}. The data show that {better} is better than {worse} on patients like these, with these trainings."
    if outside:
        floor = f" With {people} the test cannot go below {c.smallest_p_value:.3g}." if c.smallest_p_value >= 0.05 else ""
        return f"{seen} {figures}. The data do not settle it: the interval leaves out zero, but chance alone could do this.{floor}"
    reach = max(abs(low), abs(high))
    return (
        f"{seen} {figures}. The data do not show a difference; nor do they show that there is none: "
        f"one of up to {reach:.4f} fits them as well."
    )
