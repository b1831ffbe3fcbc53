"""One labelled case of a store, segmented and compared with its reference labels on the native grid."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from attunet.confidence.calibration import CalibrationCounts, CalibrationObserver
from attunet.confidence.estimator import LearnedCase
from attunet.confidence.features import CaseFeatures, FeatureObserver, training_distance
from attunet.errors import InputError
from attunet.metrics.overlap import CaseMetrics, case_metrics, confusion, dice_from_confusion
from attunet.store import Store
from attunet.volumes.model import Model
from attunet.volumes.postprocess import postprocess
from attunet.volumes.predict import Observer
from attunet.volumes.slices import VolumeSlices, resample_labels
from attunet.volumes.spec import UNTOUCHED, Postprocessing
from attunet.volumes.volume import Volume


@dataclass(frozen=True, eq=False)
class LabelledCase:
    """A volume read from the source files, with its reference labels as class indices uint8 `(X, Y, Z)`."""

    name: str
    volume: Volume
    truth: np.ndarray
    drawn: np.ndarray  # bool (K,): the classes that were drawn in this case

    @property
    def num_classes(self) -> int:
        return len(self.drawn)

    def comparable(self, indices: np.ndarray) -> np.ndarray:
        """The prediction, with background for classes that were not drawn, because nothing is known of them."""
        return indices if self.drawn.all() else np.where(self.drawn[indices], indices, 0).astype(indices.dtype)

    def confusion(self, indices: np.ndarray) -> np.ndarray:
        """Voxel counts int64 `(K, K)` of class indices `(X, Y, Z)`: rows the reference, columns the prediction."""
        return confusion(self.comparable(indices), self.truth, self.num_classes)

    def metrics(self, indices: np.ndarray) -> CaseMetrics:
        """Every metric of class indices `(X, Y, Z)`."""
        return case_metrics(self.comparable(indices), self.truth, self.volume.spacing, self.num_classes)


@dataclass(frozen=True, eq=False)
class CaseEvaluation:
    """A model's prediction for one labelled case. raw: class indices uint8 `(X, Y, Z)` before post-processing."""

    case: LabelledCase
    raw: np.ndarray
    postprocessing: Postprocessing

    def finished(self, postprocessing: Postprocessing | None = None) -> np.ndarray:
        """Class indices uint8 `(X, Y, Z)` after the model's post-processing, or after another one."""
        how = self.postprocessing if postprocessing is None else postprocessing
        return postprocess(self.raw, self.case.num_classes, self.case.volume.spacing, how)

    @cached_property
    def confusion(self) -> np.ndarray:
        """Voxel counts int64 `(K, K)` after the model's post-processing: rows the reference, columns the prediction."""
        return self.case.confusion(self.finished())


@dataclass(frozen=True, eq=False)
class ObservedEvaluation(CaseEvaluation):
    """With data for the estimator of Dice to learn from. calibration: None if not every class was drawn."""

    features: CaseFeatures
    calibration: CalibrationCounts | None

    def learned(self, patient: str, postprocessing: Postprocessing) -> LearnedCase:
        """The data with the Dice after a post-processing."""
        counts = self.case.confusion(self.finished(postprocessing))
        defined = tuple(None if np.isnan(value) else float(value) for value in dice_from_confusion(counts)[1:])
        drawn, voxels = self.case.drawn[1:], counts.sum(axis=1)[1:]
        had = tuple(bool(number) if is_drawn else None for number, is_drawn in zip(voxels, drawn, strict=True))
        return LearnedCase(patient, self.features, defined, had, self.calibration)


def read_labelled_case(store: Store, name: str) -> LabelledCase:
    """A case's volume and reference labels, read from the source files and checked against the store's hashes. Raises
    InputError for an unknown case, one without labels, and source files that are missing or changed.
    """
    volume, truth = store.read_source(name)
    if truth is None:
        raise InputError(f"{store.path}: the case {name!r} has no labels to compare a prediction with")
    return LabelledCase(name, volume, truth, store.drawn_classes(name))


def evaluate_case(model: Model, case: LabelledCase, *, batch_size: int = 8) -> CaseEvaluation:
    """Segments a labelled case with a model."""
    raw = model.predict_prepared(model.prepare(case.volume), batch_size=batch_size, postprocessing=UNTOUCHED)
    return CaseEvaluation(case, raw, model.postprocessing)


def observe_case(model: Model, case: LabelledCase) -> ObservedEvaluation:
    """As `evaluate_case`, for a model that gives logits."""
    prepared = model.prepare(case.volume)
    assert isinstance(prepared, VolumeSlices)
    grid, num_classes = prepared.grid, case.num_classes
    features, calibration = FeatureObserver(grid, num_classes), None
    observers: list[Observer] = [features]
    if case.drawn.all():
        calibration = CalibrationObserver(grid, num_classes, resample_labels(case.truth, grid, num_classes))
        observers.append(calibration)
    raw = model.predict_prepared(prepared, postprocessing=UNTOUCHED, observers=observers)
    distance = training_distance(case.volume, model.ranges, model.spec.orientation)
    counts = calibration.counts if calibration else None
    return ObservedEvaluation(case, raw, model.postprocessing, features.features(distance), counts)
