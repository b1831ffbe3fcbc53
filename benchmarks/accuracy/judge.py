"""Dice of the cases that a training left out, a row each."""

from collections.abc import Callable
from typing import TypedDict

import numpy as np

from attunet.evaluate_case import LabelledCase, evaluate_case, read_labelled_case
from attunet.metrics.aggregate import mean, nan_to_null
from attunet.metrics.overlap import dice_from_confusion
from attunet.metrics.results import PerClass
from attunet.store import Store
from attunet.volumes.model import Model


class About(TypedDict):
    """The training or the ensemble that judged cases are of; an ensemble has the network "all" and the seed -1."""

    arm: str
    kind: str
    network: str
    seed: int
    fold: int


class Row(About):
    """One judged case; `mean`: of `dice` over the classes."""

    case: str
    patient: str
    mean: float | None
    dice: PerClass


def confusion_of(model: Model) -> Callable[[LabelledCase], np.ndarray]:
    """The function that segments a case with the model and counts its voxels, after post-processing."""
    return lambda case: evaluate_case(model, case).confusion


def judge(about: About, store: Store, fold: int, confusion: Callable[[LabelledCase], np.ndarray]) -> list[Row]:
    """Dice on the native grid of the cases that a fold of the store leaves out, as the cross-validation judges them.

    Args:
        confusion: a case -> voxel counts `(K, K)`, rows the reference, columns the prediction.
    """
    rows: list[Row] = []
    for name in store.split(fold)[1]:
        dice = dice_from_confusion(confusion(read_labelled_case(store, name)))[1:]
        by_class: PerClass = {**dict(zip(store.classes.foreground, map(float, dice), strict=True))}
        rows.append({**about, "case": name, "patient": store.case(name).patient, "mean": mean(dice), "dice": by_class})
    return nan_to_null(rows)
