import dataclasses

import numpy as np
import pytest

from attunet.errors import InputError
from attunet.volumes.geometry import place
from attunet.volumes.slices import VolumeSlices, gather_context, resample_labels, restore
from attunet.volumes.spec import PreprocessSpec
from attunet.volumes.volume import Volume

SPEC = PreprocessSpec("LPS", 2, spacing_mm=1.5, size=(64, 64))


def volume_of(data: np.ndarray, spacing: tuple[float, float, float] = (2.0, 1.0, 5.0)) -> Volume:
    return Volume(data if data.ndim == 4 else data[None], np.diag([-spacing[0], -spacing[1], spacing[2], 1.0]))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).gamma(2, 100, shape).astype(np.float32)


def test_pixels_get_the_spacing_asked_for_along_both_axes() -> None:
    grid = VolumeSlices(volume_of(noise(30, 40, 3)), dataclasses.replace(SPEC, size=(32, 32))).grid
    assert grid.resampled_shape == (27, 40)  # rows: 40 × 1 mm, columns: 30 × 2 mm
    assert grid.window == (32, 48)


def test_slices_are_padded_to_the_training_window_and_run_whole_beyond_it() -> None:
    volume = volume_of(noise(30, 40, 3))
    assert VolumeSlices(volume, dataclasses.replace(SPEC, size=(64, 32))).grid.window == (64, 48)


def test_intensity_units_do_not_matter() -> None:
    data = noise(30, 40, 3)
    expected = VolumeSlices(volume_of(data), SPEC)[:]
    np.testing.assert_allclose(VolumeSlices(volume_of(data * 7 + 1000), SPEC)[:], expected, atol=1e-3)
    np.testing.assert_allclose(VolumeSlices(volume_of(data.astype(np.float64)), SPEC)[:], expected, atol=1e-5)


def test_a_volume_has_mean_0_and_deviation_1_and_no_outliers() -> None:
    data = noise(32, 32, 4)
    data[3, 4, 2] = 1e6
    spec = dataclasses.replace(SPEC, spacing_mm=None, size=(32, 32))
    slices = VolumeSlices(volume_of(data), spec)[:]
    assert slices.mean() == pytest.approx(0, abs=1e-4)
    assert slices.std() == pytest.approx(1, abs=1e-3)
    assert slices.max() < 10


def test_a_constant_volume_is_zero() -> None:
    assert not VolumeSlices(volume_of(np.full((16, 16, 2), 7, np.int16)), SPEC)[:].any()


def test_training_sees_the_middle_of_what_prediction_sees() -> None:
    volume = volume_of(noise(90, 40, 3))
    whole, cropped = VolumeSlices(volume, SPEC), VolumeSlices(volume, SPEC, SPEC.size)
    assert whole[:].shape == (3, 1, 64, 128)
    assert cropped[:].shape == (3, 1, 64, 64)
    left = whole.grid.offset[1] - cropped.grid.offset[1]
    np.testing.assert_array_equal(cropped[:], whole[:][:, :, :, left : left + 64])


def test_padding_is_air() -> None:
    volume = volume_of(noise(20, 20, 2))
    prepared = VolumeSlices(volume, SPEC, SPEC.size)
    assert prepared[:][0, 0, 0, 0] == pytest.approx(prepared.statistics[0].pad_value)
    assert prepared.statistics[0].pad_value == pytest.approx(float(prepared[:].min()), abs=0.1)


def test_labels_lie_where_their_image_lies() -> None:
    labels = np.zeros((90, 40, 3), np.uint8)
    labels[30:60, 10:30, 1] = 1
    prepared = VolumeSlices(volume_of(labels.astype(np.float32)), SPEC, SPEC.size)
    bright = prepared[:][:, 0] > (prepared[:].min() + prepared[:].max()) / 2
    np.testing.assert_array_equal(
        place(resample_labels(labels, prepared.grid, 2), prepared.grid.window, prepared.grid.offset, 0) == 1, bright
    )


def test_ct_scales_a_window_to_plus_and_minus_1() -> None:
    data = np.tile(np.array([-3000, -160, 40, 240, 3000], np.int16), (16, 1))[:, :, None]
    spec = PreprocessSpec("LPS", 2, None, (32, 32), normalization="ct")
    prepared = VolumeSlices(volume_of(data), spec)
    assert set(np.unique(prepared[:])) == {-1, 0, 1}
    assert prepared.statistics[0].pad_value == -1


def test_none_divides_integers_by_their_range_and_keeps_floats() -> None:
    spec = PreprocessSpec(None, 2, None, (16, 16), normalization="none", num_channels=3)
    rgb = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 1), dtype=np.uint8)
    np.testing.assert_allclose(
        VolumeSlices(volume_of(rgb), spec)[:][0], rgb[..., 0].transpose(0, 2, 1) / 255, atol=1e-6
    )
    np.testing.assert_allclose(
        VolumeSlices(volume_of(rgb.astype(np.float32)), spec)[:][0], rgb[..., 0].transpose(0, 2, 1)
    )


def test_neighbouring_slices_are_channels_and_clamped_at_the_ends() -> None:
    slices = np.arange(4)[:, None, None, None] * 10 + np.arange(2)[None, :, None, None] + np.zeros((4, 2, 16, 16))
    context = gather_context(slices, [0, 2, 3], 3)
    assert context[:, :, 0, 0].tolist() == [[0, 1, 0, 1, 10, 11], [10, 11, 20, 21, 30, 31], [20, 21, 30, 31, 30, 31]]
    assert gather_context(slices, [1], 1).tolist() == slices[1:2].tolist()


def test_logits_are_interpolated_before_the_class_is_chosen() -> None:
    """A border between pixels of the network lands between them, not on one."""
    volume = volume_of(noise(30, 40, 3))
    grid = VolumeSlices(volume, dataclasses.replace(SPEC, spacing_mm=4.0)).grid
    columns = np.arange(grid.window[1]) - grid.offset[1]
    logits = np.stack([np.broadcast_to(c, (1, *grid.window)) for c in (columns * 0.0, columns - 6.8)], axis=1)
    found = restore(logits, grid)[0]
    expected = (np.arange(30) + 0.5) * 15 / 30 - 0.5 > 6.8
    np.testing.assert_array_equal(found, np.broadcast_to(expected, (40, 30)))


def test_what_cannot_be_prepared_is_one_line() -> None:
    broken = noise(16, 16, 2)
    broken[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="must be finite numbers, 1 of 512"):
        VolumeSlices(volume_of(broken), SPEC)
    with pytest.raises(InputError, match="the number of channels must be 1 as in training, got 2"):
        VolumeSlices(volume_of(noise(2, 16, 16, 2)), SPEC)
    with pytest.raises(InputError, match="at most 16384 pixels"):
        VolumeSlices(volume_of(noise(16, 16, 2), spacing=(1.0, 9000.0, 1.0)), SPEC)
