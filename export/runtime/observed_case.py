"""Estimates of Dice and map of uncertainty of one prediction, and their files beside the label map."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from attunet.confidence.estimate import CaseConfidence
from attunet.confidence.estimator import Estimator
from attunet.confidence.features import FeatureObserver, training_distance
from attunet.confidence.uncertainty import UncertaintyMap
from attunet.errors import Finding
from attunet.export.runtime.case_output import confidence_file, map_file
from attunet.io.writers import write_map
from attunet.system.atomic_files import write_text
from attunet.volumes.model import Model, PreparedVolume
from attunet.volumes.oriented_volume import OrientedVolume
from attunet.volumes.predict import Observer
from attunet.volumes.volume import Volume

UNCERTAINTY = "uncertainty"  # ending of a map's name


@dataclass(frozen=True)
class ConfidenceOptions:
    """Estimates and maps besides the label map."""

    estimates: bool = True  # of Dice, if the model has an estimator
    uncertainty: bool = False  # a map of it
    threshold: float | None = None  # Dice below which organs are marked, in place of the learned one


ESTIMATES = ConfidenceOptions()


class ObservedCase:
    """Observers of one prediction, to pass to `predict_prepared`; `confidence` and `write` then give the results."""

    def __init__(
        self,
        model: Model,
        estimator: Estimator | None,
        volume: Volume,
        prepared: PreparedVolume,
        options: ConfidenceOptions = ESTIMATES,
    ) -> None:
        self._model, self._volume, self._options = model, volume, options
        self._estimator = estimator if options.estimates else None
        self._features: FeatureObserver | None = None
        self._map: UncertaintyMap | None = None
        if isinstance(prepared, OrientedVolume):
            return  # the graph returns labels only
        if self._estimator is not None:
            self._features = FeatureObserver(prepared.grid, len(model.classes))
        if options.uncertainty:
            self._map = UncertaintyMap(prepared.grid, len(model.classes), estimator.temperature if estimator else 1.0)

    @property
    def observers(self) -> list[Observer]:
        return [observer for observer in (self._features, self._map) if observer is not None]

    def confidence(self, indices: np.ndarray, findings: Sequence[Finding]) -> CaseConfidence | None:
        """The estimates after the prediction of the class indices `(X, Y, Z)`; None without an estimator."""
        if self._features is None or self._estimator is None:
            return None
        distance = training_distance(self._volume, self._model.ranges, self._model.spec.orientation)
        features = self._features.features(distance)
        names = self._model.classes.foreground
        present = [box is not None for box in ndimage.find_objects(indices, max_label=len(names))]
        return self._estimator.estimate(features, names, findings, present=present, threshold=self._options.threshold)

    def write(self, labels: Path, confidence: CaseConfidence | None) -> None:
        """Write the estimates and the map beside a label map."""
        if confidence is not None:
            write_text(confidence_file(labels), json.dumps(confidence.to_json(), indent=1, allow_nan=False) + "\n")
        if self._map is not None:
            write_map(map_file(labels, UNCERTAINTY), self._map.volume(), self._volume)
