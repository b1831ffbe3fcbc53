"""Intervals over patients, and paired comparisons of two models.

The patient is the unit throughout: the cases of one patient are averaged first, because they are not independent.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from attunet.metrics.aggregate import mean_of_defined, nan_to_null, per_patient
from attunet.metrics.results import TestedDifference

MIN_PATIENTS = 5  # resampling fewer values says more about these values than about the population
EXACT_UP_TO = 16  # patients whose 2**n sign patterns are all enumerated; for more, SIGN_DRAWS are drawn
SIGN_DRAWS = 20_000


def bootstrap_interval(
    values: np.ndarray, *, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """Bootstrap interval of the mean: the expanded percentile interval.

    Plain percentiles of resampled means are too narrow for small n: of normal samples, 86 % of them cover the mean at n
    = 6 and 84 % at n = 5. Wider percentiles allow for the n in the denominator of the deviation and for Student's t in
    place of the normal: 93 % cover it at n = 6 and 92 % at n = 5. (scipy.stats.bootstrap has no such interval.)

    Source: Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 69 (2015).

    Args:
        values: one per patient, `(n,)`.
        level: the share of such intervals that should cover the mean.
        draws: number of resamples.
        seed: seed of the resampling.

    Returns:
        Lower and upper end; None for fewer than MIN_PATIENTS values.
    """
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if n < MIN_PATIENTS:
        return None
    tail = special.ndtr(np.sqrt(n / (n - 1)) * special.stdtrit(n - 1, (1 - level) / 2))
    picks = np.random.default_rng(seed).integers(0, n, (draws, n))
    low, high = np.quantile(values[picks].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)


def permutation_p_value(differences: np.ndarray, *, draws: int = SIGN_DRAWS, seed: int = 0) -> float:
    """Two-sided p-value of the sign-flip permutation test that paired differences have a mean of zero.

    Args:
        differences: one per patient, `(n,)`.
        draws: number of random sign patterns for more than EXACT_UP_TO patients; all patterns are enumerated up to
            that.
        seed: seed of the random patterns.

    Returns:
        The share of sign patterns whose mean is at least as far from zero as the observed one; 1 without patients.
    """
    from scipy import stats  # half a second to import, and few commands test anything

    if len(differences) < 2:  # SciPy refuses a single pair; both of its sign patterns are equally far from zero
        return 1.0
    resamples = 2**EXACT_UP_TO if len(differences) <= EXACT_UP_TO else draws  # SciPy enumerates where that suffices

    def distance(values: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(np.abs(values.mean(axis=axis)))

    rng = np.random.default_rng(seed)
    test = stats.permutation_test(
        (differences,),
        distance,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        alternative="greater",
        rng=rng,
    )
    return float(test.pvalue)


@dataclass(frozen=True)
class PairedComparison:
    """`second` against `first` on the same patients. Differences are second minus first,
    so above 0 the second is better.
    """

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
        return _words(self)

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
    seed: int = 0,
) -> PairedComparison:
    """Compare two models on the cases that both have a defined score for.

    Args:
        first: case name -> score of the first model, None or NaN where not defined.
        second: the same of the second model.
        patients: case name -> patient.
        names: names of the two models, for the sentences.
        metric: name of the metric, for the sentences.
        seed: seed of the resampling.

    Returns:
        The comparison over the patients' means; without interval and p-value for fewer than MIN_PATIENTS patients.

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
        ci95=bootstrap_interval(differences, seed=seed),
        p_value=permutation_p_value(differences, seed=seed) if enough else None,
    )


def _words(c: PairedComparison) -> str:
    if c.num_patients == 0:
        return f"{c.second} and {c.first} share no patient to be compared on."
    people = f"{c.num_patients} patient{'s' if c.num_patients > 1 else ''}"
    seen = f"{c.second} differs from {c.first} by {c.difference:+.4f} in mean {c.metric} over {people}"
    if c.ci95 is None or c.p_value is None:
        return (
            f"{seen}. Under {MIN_PATIENTS} patients there is no interval and no test: this says nothing about other "
            "patients."
        )
    low, high = c.ci95
    figures = f"(95 % interval {low:+.4f} to {high:+.4f}, permutation p = {c.p_value:.3g})"
    outside = low > 0 or high < 0
    if outside and c.p_value < 0.05:
        better, worse = (c.second, c.first) if c.difference > 0 else (c.first, c.second)
        return (
            f"{seen} {figures}. The data show that {better} is better than {worse} on patients like these, with these "
            "trainings."
        )
    if outside:
        floor = (
            f" With {people} the test cannot go below {c.smallest_p_value:.3g}." if c.smallest_p_value >= 0.05 else ""
        )
        return (
            f"{seen} {figures}. The data do not decide it: the interval leaves out zero, but chance alone could do "
            f"this.{floor}"
        )
    reach = max(abs(low), abs(high))
    return (
        f"{seen} {figures}. The data do not show a difference; nor do they show that there is none: "
        f"one of up to {reach:.4f} fits them as well."
    )
