"""Means of scores over classes, cases and patients. NaN means "not defined", counts in no mean, and is null in JSON."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from attunet.fields import MAX_NUMBER, is_number
from attunet.metrics.results import MetricTable, PerClass

Json = TypeVar("Json")


def mean_of_defined(values: npt.ArrayLike, axis: int | None = None) -> np.ndarray:
    """Mean of the values that are not NaN, along an axis or of all: float64; NaN, without a warning, of none."""
    array = np.asarray(values, dtype=np.float64)
    defined = ~np.isnan(array)
    count = defined.sum(axis=axis)
    return np.where(count > 0, np.where(defined, array, 0).sum(axis=axis) / np.maximum(count, 1), np.nan)


def mean(values: Iterable[float]) -> float:
    """Mean of the numbers that are not NaN; NaN if there are none."""
    return float(mean_of_defined(list(values)))


def case_means(scores: Mapping[str, npt.ArrayLike]) -> dict[str, float]:
    """Case name -> mean over its classes; NaN for a case without a defined score. scores: case -> `(K - 1,)`."""
    return {case: float(mean_of_defined(values)) for case, values in scores.items()}


def per_patient(values: Mapping[str, float], patients: Mapping[str, str]) -> dict[str, float]:
    """Patient -> mean over the patient's cases; patients without a defined score are left out."""
    by_patient: dict[str, list[float]] = {}
    for case, value in values.items():
        by_patient.setdefault(patients[case], []).append(value)
    means = {patient: mean(scores) for patient, scores in by_patient.items()}
    return {patient: value for patient, value in means.items() if not np.isnan(value)}


def summarize(
    scores: Mapping[str, npt.ArrayLike], classes: Sequence[str], *, exclude: Iterable[str] = ()
) -> MetricTable:
    """Table of one metric: its mean over classes, then cases, its mean per class, and every case; NaN where nothing is
    defined. `nan_to_null` makes it JSON.

    Args:
        scores: case name -> score per foreground class, `(K - 1,)`, in the order of `classes`.
        exclude: cases that are listed and counted in no mean.
    """
    excluded = set(exclude)
    counted = {case: values for case, values in scores.items() if case not in excluded}
    table = np.array([np.asarray(values) for values in counted.values()]).reshape(-1, len(classes))
    per_class = mean_of_defined(table, axis=0)
    return {
        "mean": mean(case_means(counted).values()),
        "per_class": _by_class(per_class, classes),
        "per_case": {case: _by_class(values, classes) for case, values in scores.items()},
    }


def is_score(metric: str, value: object) -> bool:
    """True for a value in JSON that a metric can have; None where it is not defined."""
    high = {"dice": 1, "surface_dice": 1, "precision": 1, "recall": 1, "chaos_score": 100}.get(metric, MAX_NUMBER)
    return value is None or is_number(value, 0, high * (1 + 1e-9))  # sums of shares round


def nan_to_null(value: Json) -> Json:
    """A copy of nested dicts and lists that JSON can hold: NaN and infinity become None, NumPy's numbers Python's."""
    result: object = value
    if isinstance(value, Mapping):
        result = {key: nan_to_null(inner) for key, inner in value.items()}
    elif isinstance(value, list | tuple):
        result = [nan_to_null(inner) for inner in value]
    elif isinstance(value, float | np.floating):
        result = float(value) if np.isfinite(value) else None
    elif isinstance(value, np.integer):
        result = int(value)
    return cast(Json, result)


def _by_class(values: npt.ArrayLike, classes: Sequence[str]) -> PerClass:
    return dict(zip(classes, np.asarray(values, dtype=np.float64).tolist(), strict=True))


def describe_dice(dice: MetricTable) -> str:
    """The mean and the defined values of the classes, for a line of the log."""
    classes = ", ".join(f"{name} {value:.3f}" for name, value in dice["per_class"].items() if value is not None)
    return f"{dice['mean'] or 0:.4f} ({classes})"
