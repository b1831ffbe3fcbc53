"""Means of scores over classes, then cases, then patients. NaN means "not defined" and counts in no mean;
JSON has null for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from attunet.metrics.results import MetricTable, PerClass

Json = TypeVar("Json")


def mean_of_defined(values: npt.ArrayLike, axis: int | None = None) -> np.ndarray:
    """Mean over the values that are not NaN.

    Args:
        values: numbers of any shape.
        axis: the axis to average over; None averages over all values.

    Returns:
        float64 array without `axis`; NaN, without a warning, where no value is defined.
    """
    array = np.asarray(values, dtype=np.float64)
    defined = ~np.isnan(array)
    count = defined.sum(axis=axis)
    return np.where(count > 0, np.where(defined, array, 0).sum(axis=axis) / np.maximum(count, 1), np.nan)


def mean(values: Iterable[float]) -> float:
    """Mean of the numbers that are not NaN; NaN if there are none."""
    return float(mean_of_defined(list(values)))


def case_means(scores: Mapping[str, npt.ArrayLike]) -> dict[str, float]:
    """Mean over the classes of each case.

    Args:
        scores: case name -> score per foreground class, `(K - 1,)`.

    Returns:
        Case name -> mean; NaN for a case without a defined score.
    """
    return {case: float(mean_of_defined(values)) for case, values in scores.items()}


def mean_over_cases(scores: Mapping[str, npt.ArrayLike]) -> float:
    """Mean over the classes of each case, then over the cases; arguments as in `case_means`."""
    return mean(case_means(scores).values())


def per_patient(values: Mapping[str, float], patients: Mapping[str, str]) -> dict[str, float]:
    """Mean over the cases of each patient.

    Args:
        values: case name -> score, NaN where not defined.
        patients: case name -> patient.

    Returns:
        Patient -> mean; patients without a defined score are left out.
    """
    by_patient: dict[str, list[float]] = {}
    for case, value in values.items():
        by_patient.setdefault(patients[case], []).append(value)
    means = {patient: mean(scores) for patient, scores in by_patient.items()}
    return {patient: value for patient, value in means.items() if not np.isnan(value)}


def summarize(
    scores: Mapping[str, npt.ArrayLike], classes: Sequence[str], *, exclude: Iterable[str] = ()
) -> MetricTable:
    """Table of one metric: its mean, its mean per class, and every case.

    Args:
        scores: case name -> score per foreground class, `(K - 1,)`.
        classes: names of the foreground classes, `K - 1` of them.
        exclude: cases that are listed and counted in no mean.

    Returns:
        `{"mean": over classes, then cases, "per_class": {class: mean over cases}, "per_case": {case: {class: score}}}`,
        NaN where nothing is defined; `nan_to_null` makes it JSON.
    """
    excluded = set(exclude)
    counted = {case: values for case, values in scores.items() if case not in excluded}
    per_class = (
        mean_of_defined(np.stack([np.asarray(v) for v in counted.values()]), axis=0)
        if counted
        else np.full(len(classes), np.nan)
    )
    return {
        "mean": mean_over_cases(counted),
        "per_class": _by_class(per_class, classes),
        "per_case": {case: _by_class(values, classes) for case, values in scores.items()},
    }


def nan_to_null(value: Json) -> Json:
    """A copy that JSON can hold, of nested dicts, lists and tuples:
    NaN and infinity become None, NumPy's numbers Python's.
    """
    return cast(Json, _nan_to_null(value))


def _nan_to_null(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _nan_to_null(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_nan_to_null(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _by_class(values: npt.ArrayLike, classes: Sequence[str]) -> PerClass:
    return dict(zip(classes, np.asarray(values, dtype=np.float64).tolist(), strict=True))


def describe_dice(dice: MetricTable) -> str:
    """The mean and the defined values of the classes, for a line of the log."""
    classes = ", ".join(f"{name} {value:.3f}" for name, value in dice["per_class"].items() if value is not None)
    return f"{dice['mean'] or 0:.4f} ({classes})"
