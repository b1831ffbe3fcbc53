"""Exact features of hand-made logits, and the same features whatever the batches."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from attunet.confidence.features import CaseFeatures, FeatureObserver, OrganFeatures, softmax, training_distance
from attunet.confidence.uncertainty import UncertaintyMap
from attunet.fields import Fields
from attunet.volumes.model import NetworkModel
from attunet.volumes.predict import predict_prepared
from attunet.volumes.slices import VolumeSlices
from attunet.volumes.spec import PreprocessSpec
from attunet.volumes.training_ranges import TrainingRanges
from attunet.volumes.volume import Volume

SPEC = PreprocessSpec("LPS", 2, spacing_mm=None, size=(16, 16), normalization="none")
AFFINE = np.diag([-2.0, -2.0, 5.0, 1.0])


def prepared_of(shape: tuple[int, int, int], spec: PreprocessSpec = SPEC) -> VolumeSlices:
    return VolumeSlices(Volume(np.ones((1, *shape), np.float32), AFFINE), spec)


def logits_of(probabilities: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Logits of two classes from the organ's probability, in the window of the slices."""
    return np.log(np.stack([background, probabilities], axis=1)).astype(np.float32)


@pytest.fixture
def output() -> np.ndarray:
    """Two slices of 16 × 16: the organ has 0.75 on 4 pixels of slice 0 and 1 of slice 1, 0.25 on 8, and 0 elsewhere."""
    organ = np.full((2, 16, 16), 1e-12)
    organ[0, 2:4, 2:4] = 0.75
    organ[1, 10, 10] = 0.75
    organ[0, 8, 0:8] = 0.25
    return logits_of(organ, 1 - organ)


def test_exact_values_of_hand_made_logits(output: np.ndarray) -> None:
    observer = FeatureObserver(prepared_of((16, 16, 2)).grid, 2)
    observer(0, output)
    (organ,) = observer.features(0.5).organs
    assert organ is not None
    assert organ.size == pytest.approx(5 * 2 * 2 * 5)
    assert organ.parts == 2
    assert organ.largest_part == pytest.approx(4 / 5)
    assert organ.expected_dice == pytest.approx(2 * 5 * 0.75 / (5 + 5 * 0.75 + 8 * 0.25), rel=1e-5)
    assert organ.margin == pytest.approx(0.5, rel=1e-5)
    assert organ.entropy == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2), rel=1e-5)
    assert organ.disagreement is None
    assert observer.features(0.5).distance == 0.5


def test_padding_is_not_counted() -> None:
    prepared = prepared_of((8, 8, 1))
    assert prepared.grid.window == (16, 16)
    organ = np.full((1, 16, 16), 0.9)
    observer = FeatureObserver(prepared.grid, 2)
    observer(0, logits_of(organ, 1 - organ))
    (features,) = observer.features(0.0).organs
    assert features is not None
    assert features.size == 8 * 8 * 20
    assert features.expected_dice == pytest.approx(2 * 0.9 / 1.9, rel=1e-5)


def test_a_class_that_is_not_predicted_has_no_features() -> None:
    observer = FeatureObserver(prepared_of((16, 16, 1)).grid, 3)
    logits = np.zeros((1, 3, 16, 16), np.float32)
    logits[:, 2, 4, 4] = 5
    observer(0, logits)
    first, second = observer.features(0.0).organs
    assert first is None
    assert second is not None
    assert second.parts == 1


def test_the_channel_behind_the_logits_is_the_disagreement(output: np.ndarray) -> None:
    disagreement = np.zeros((2, 1, 16, 16), np.float32)
    disagreement[0, 0, 2, 2] = 0.5
    disagreement[0, 0, 12, 12] = 1.0  # background
    observer = FeatureObserver(prepared_of((16, 16, 2)).grid, 2)
    observer(0, np.concatenate([output, disagreement], axis=1))
    (organ,) = observer.features(0.0).organs
    assert organ is not None
    assert organ.disagreement == pytest.approx(0.5 / 5)
    assert organ.margin == pytest.approx(0.5, rel=1e-5)


def test_features_do_not_depend_on_the_batches_and_labels_not_on_observers() -> None:
    spec = PreprocessSpec("LPS", 2, spacing_mm=3.0, size=(32, 32), normalization="none")
    rng = np.random.default_rng(0)
    volume = Volume(rng.random((1, 20, 24, 7)).astype(np.float32), AFFINE)
    weights = rng.standard_normal((3, 1, 1)).astype(np.float32)

    def network(slices: np.ndarray) -> np.ndarray:
        return 4 * weights * (slices - 0.5)

    model = NetworkModel("hand-made", spec, classes=None, network=network)  # type: ignore[arg-type]
    seen = []
    for batch_size in (1, 3, 7):
        prepared = VolumeSlices(volume, spec)
        observer = FeatureObserver(prepared.grid, 3)
        labels = predict_prepared(network, prepared, batch_size=batch_size, observers=[observer])
        assert np.array_equal(labels, predict_prepared(network, prepared))
        seen.append(observer.features(training_distance(volume, model.ranges, spec.orientation)))
    assert seen[0] == seen[1] == seen[2]


def test_features_survive_json() -> None:
    organ = OrganFeatures(123.4, 3, 0.9, 1 / 3, 0.1, 0.7, None)
    features = CaseFeatures((organ, None, OrganFeatures(5.0, 1, 1.0, 0.5, 0.2, 0.1, 0.05)), 0.3)
    assert CaseFeatures.from_json(Fields(json.loads(json.dumps(asdict(features))), "file"), 3) == features


def test_distance_is_in_half_widths_of_the_ranges() -> None:
    e = math.e
    ranges = TrainingRanges("mm", ((1, e**2),) * 3, ((1, e**9),) * 3, ((0.5, 2.0),))
    data = np.array([-1.0, 1.0]).repeat(500).reshape(1, 10, 10, 10)

    def distance(size: float) -> float:
        return training_distance(Volume(data, np.diag([-size, -size, size, 1.0])), ranges, "LPS")

    assert distance(e) == pytest.approx(abs(math.log(10 * e) - 4.5) / 4.5)  # the extent is the farthest
    assert distance(e**3) == pytest.approx(2.0)  # the spacing is as far outside as the range is wide
    assert training_distance(Volume(data, AFFINE), None, "LPS") == 0


def test_temperature_does_not_change_the_order() -> None:
    logits = np.array([[2.0, 0.0, -1.0]], np.float32)
    assert softmax(logits, 2.0)[0] == pytest.approx(np.exp([1.0, 0.0, -0.5]) / np.exp([1.0, 0.0, -0.5]).sum())


def test_the_map_is_the_entropy_on_the_native_grid() -> None:
    prepared = prepared_of((8, 8, 2))
    logits = np.zeros((2, 4, 16, 16), np.float32)
    logits[1, 0] = 1000
    observer = UncertaintyMap(prepared.grid, 4)
    observer(0, logits)
    volume = observer.volume()
    assert volume.shape == (8, 8, 2)
    assert volume[..., 0] == pytest.approx(1)
    assert volume[..., 1] == pytest.approx(0, abs=1e-6)
