"""Temperatures and errors of calibration where they are known."""

import numpy as np
import pytest

from attunet.confidence.calibration import TEMPERATURES, UNSCALED, CalibrationCounts, CalibrationObserver, calibrate
from attunet.fields import Fields
from attunet.volumes.slices import VolumeSlices
from attunet.volumes.spec import PreprocessSpec
from attunet.volumes.volume import Volume


def counts_of(temperature: float, seed: int, pixels: int = 20000) -> CalibrationCounts:
    """Pixels whose truth is drawn from their probabilities, with logits that are too large by the temperature."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((pixels, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (rng.random((pixels, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    return CalibrationCounts.of((logits * temperature).astype(np.float32), truth)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_temperature_of_overconfident_logits_is_learned(temperature: float) -> None:
    patients = [counts_of(temperature, seed) for seed in range(4)]
    calibration = calibrate(patients)
    assert calibration is not None
    assert calibration.temperature == pytest.approx(temperature, rel=0.07)
    assert calibration.error_after < 0.01
    if temperature > 1:
        assert calibration.error_before > 0.05


def test_exact_expected_calibration_error() -> None:
    logits = np.log(np.array([[0.8, 0.2]] * 10, np.float32))
    counts = CalibrationCounts.of(logits, np.array([0] * 6 + [1] * 4))
    assert counts.num_pixels == 10
    calibration = calibrate([counts] * 3)
    assert calibration is not None
    assert calibration.error_before == pytest.approx(0.2, abs=1e-6)
    assert counts.nll[UNSCALED] == pytest.approx(-6 * np.log(0.8) - 4 * np.log(0.2), rel=1e-5)


def test_a_temperature_that_does_not_help_others_is_not_taken() -> None:
    """Two patients ask for a higher, two for a lower temperature, and each is judged by the others' choice."""
    patients = [counts_of(1.4, 0), counts_of(1.4, 1), counts_of(0.7, 2), counts_of(0.7, 3)]
    calibration = calibrate(patients)
    assert calibration is not None
    assert (calibration.temperature == 1.0) == (calibration.error_after >= calibration.error_before)


def test_fewer_than_three_patients_have_no_temperature() -> None:
    assert calibrate([counts_of(2.0, 0), counts_of(2.0, 1)]) is None


def test_counts_survive_json_and_a_strange_file_is_refused() -> None:
    counts = counts_of(1.0, 0, pixels=50)
    again = CalibrationCounts.from_json(Fields(counts.to_json(), "file"))
    assert np.array_equal(again.pixels, counts.pixels)
    assert again.nll == pytest.approx(counts.nll, abs=1e-3)
    broken = counts.to_json()
    broken["pixels"][0] = [1]
    with pytest.raises(ValueError, match="pixels"):
        CalibrationCounts.from_json(Fields(broken, "file"))
    assert 1.0 in TEMPERATURES


def test_ignored_pixels_and_far_background_are_not_counted() -> None:
    spec = PreprocessSpec("LPS", 2, spacing_mm=None, size=(48, 48), normalization="none")
    grid = VolumeSlices(Volume(np.ones((1, 48, 48, 2), np.float32), np.diag([-1.0, -1.0, 5.0, 1.0])), spec).grid
    truth = np.zeros((2, 48, 48), np.uint8)
    truth[0, 24, 24] = 1
    truth[1, 10:20, 10:20] = 255
    logits = np.zeros((2, 2, 48, 48), np.float32)
    logits[:, 0] = 3
    observer = CalibrationObserver(grid, 2, truth)
    observer(0, logits)
    # Five pixels around the organ's one, and nothing of the slice without organs
    assert observer.counts.num_pixels == 11 * 11
