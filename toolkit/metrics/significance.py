"""Intervals over patients, and paired comparisons of two models.

The patient is the unit throughout: the cases of one patient are averaged first, because they are not independent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import special

from attunet.metrics.aggregate import mean_of_defined, nan_to_null, per_patient
from attunet.metrics.results import TestedDifference

LEVEL = 0.95  # share of such intervals that should cover the mean
MIN_PATIENTS = 5  # resampling fewer values says more about these values than about the population
EXACT_UP_TO = 16  # patients whose 2**n sign patterns are all enumerated; for more, SIGN_DRAWS are drawn
SIGN_DRAWS = 20_000
VALUES_AT_ONCE = 2**20  # drawn in memory; results do not depend on it


def bootstrap_interval(values: np.ndarray, *, draws: int = 10_000, seed: int = 0) -> tuple[float, float] | None:
    """95 % bootstrap interval of the mean of values `(n,)`, one per patient: the expanded percentile interval; None for
    fewer than MIN_PATIENTS values.

    Plain percentiles of resampled means are too narrow for small n: of normal samples, 86 % of them cover the mean at n
    = 6 and 84 % at n = 5. Wider percentiles allow for the n in the denominator of the deviation and for Student's t in
    place of the normal: 93 % cover it at n = 6 and 92 % at n = 5. (scipy.stats.bootstrap has no such interval.)

    Source: Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 69 (2015).
    """
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if n < MIN_PATIENTS:
        return None
    tail = special.ndtr(np.sqrt(n / (n - 1)) * special.stdtrit(n - 1, (1 - LEVEL) / 2))
    rng, block = np.random.default_rng(seed), _draws_at_once(n)
    blocks = (rng.integers(0, n, (min(block, draws - start), n)) for start in range(0, draws, block))
    low, high = np.quantile(np.concatenate([values[picks].mean(axis=1) for picks in blocks]), [tail, 1 - tail])
    return float(low), float(high)


def _draws_at_once(num_patients: int) -> int:
    return max(1, VALUES_AT_ONCE // num_patients)


def patient_interval(values: Mapping[str, float], patients: Mapping[str, str]) -> list[float] | None:
    """Bootstrap interval of the mean of case -> score, over the patients; None for too few."""
    interval = bootstrap_interval(np.array(list(per_patient(values, patients).values())))
    return None if interval is None else list(interval)


def permutation_p_value(differences: np.ndarray, *, draws: int = SIGN_DRAWS, seed: int = 0) -> float:
    """Two-sided p-value of the sign-flip permutation test that differences `(n,)`, one per patient, have mean zero.

    It is the share of sign patterns whose mean is at least as far from zero as the observed one; 1 without patients.
    All patterns are enumerated for up to EXACT_UP_TO patients, `draws` are drawn for more.
    """
    from scipy import stats  # half a second to import, and few commands test anything

    if len(differences) < 2:  # SciPy refuses a single pair; both of its sign patterns are equally far from zero
        return 1.0
    resamples = 2**EXACT_UP_TO if len(differences) <= EXACT_UP_TO else draws  # SciPy enumerates where that suffices

    def distance(values: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(np.abs(values.mean(axis=axis)))

    test = partial(stats.permutation_test, permutation_type="samples", vectorized=True, alternative="greater")
    rng, batch = np.random.default_rng(seed), _draws_at_once(len(differences))
    return float(test((differences,), distance, n_resamples=resamples, batch=batch, rng=rng).pvalue)


@dataclass(frozen=True)
class PairedComparison:
    """`second` against `first` on the same patients; a difference above 0 means that the second is better."""

    first: str
    second: str
    metric: str
    num_patients: int
    difference: float
    ci95: tuple[float, float] | None
    p_value: float | None

    @property
    def smallest_p_value(self) -> float:
        """The smallest p-value that the permutation test can give for this number of patients."""
        if self.num_patients == 0:
            return 1.0
        return 2.0 ** (1 - self.num_patients) if self.num_patients <= EXACT_UP_TO else 1 / (SIGN_DRAWS + 1)

    @property
    def words(self) -> str:
        """One or two sentences: the difference, and whether the data show one."""
        if self.num_patients == 0:
            return f"{self.second} and {self.first} share no patient to be compared on."
        people = f"{self.num_patients} patient{'s' if self.num_patients > 1 else ''}"
        seen = f"{self.second} differs from {self.first} by {self.difference:+.4f} in mean {self.metric} over {people}"
        if self.ci95 is None or self.p_value is None:
            few = "there is no interval and no test: this says nothing about other patients."
            return f"{seen}. Under {MIN_PATIENTS} patients {few}"
        low, high = self.ci95
        figures = f"(95 % interval {low:+.4f} to {high:+.4f}, permutation p = {self.p_value:.3g})"
        if low <= 0 <= high:
            verdict = (
                "The data do not show a difference; nor do they show that there is none: "
                f"one of up to {max(abs(low), abs(high)):.4f} fits them as well."
            )
        elif self.p_value < 0.05:
            better, worse = (self.second, self.first) if self.difference > 0 else (self.first, self.second)
            verdict = (
                f"The data show that {better} is better than {worse} on patients like these, with these trainings."
            )
        else:
            verdict = "The data do not decide it: the interval leaves out zero, but chance alone could do this."
            if self.smallest_p_value >= 0.05:
                verdict += f" With {people} the test cannot go below {self.smallest_p_value:.3g}."
        return f"{seen} {figures}. {verdict}"

    def to_json(self) -> TestedDifference:
        return {
            "mean": nan_to_null(self.difference),
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
) -> PairedComparison:
    """Compare two models, by their names, over the patients' means of the cases that both have a defined score for;
    without interval and p-value for fewer than MIN_PATIENTS patients.

    Args:
        first, second: case name -> score of each model, None or NaN where not defined.
        patients: case name -> patient.

    Example:
        >>> patients = {f"case{i}": f"patient{i}" for i in range(6)}
        >>> unet, gated = ({case: base + i / 100 for i, case in enumerate(patients)} for base in (0.80, 0.82))
        >>> round(compare_paired(unet, gated, patients, names=("U-Net", "Attention U-Net")).difference, 3)
        0.02
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
        ci95=bootstrap_interval(differences),
        p_value=permutation_p_value(differences) if enough else None,
    )
