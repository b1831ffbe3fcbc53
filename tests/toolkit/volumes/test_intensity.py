"""Intensity statistics that are counted are those that NumPy computes from the voxels."""

import numpy as np
import pytest

from attunet.volumes.intensity import clipped_statistics


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16])
def test_counted_statistics_are_numpys(dtype):
    random = np.random.default_rng(0)
    limits = np.iinfo(dtype)
    for number in range(60):
        low, high = (limits.min, limits.max + 1) if number % 2 else (3, 9)  # all values, and many equal ones
        channel = random.integers(low, high, (random.integers(1, 40), 3, 2)).astype(dtype)
        percentiles = tuple(sorted(random.uniform(0, 100, 2))) if number % 3 else (0.0, 100.0)
        expected = np.percentile(channel.astype(np.float64), percentiles)
        clipped = np.clip(channel.astype(np.float64), *expected)
        got = clipped_statistics(channel, percentiles)
        np.testing.assert_array_equal(got[:2], expected)
        np.testing.assert_allclose(got[2:], (clipped.mean(), clipped.std()), rtol=1e-12, atol=1e-12)


def test_integers_and_the_same_numbers_as_floats_are_scaled_alike():
    channel = np.random.default_rng(1).normal(300, 90, (5, 40, 30)).astype(np.int16)
    np.testing.assert_allclose(
        clipped_statistics(channel, (0.5, 99.5)), clipped_statistics(channel.astype(np.float32), (0.5, 99.5)), rtol=1e-6
    )
