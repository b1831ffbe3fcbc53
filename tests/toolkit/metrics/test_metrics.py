"""Metrics on masks with known answers, and the conventions for empty ones."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from attunet.errors import InputError
from attunet.metrics.overlap import (
    case_metrics,
    chaos_score,
    confusion,
    dice_from_confusion,
    pixel_accuracy,
    precision_from_confusion,
    ravd_from_confusion,
    recall_from_confusion,
)
from attunet.metrics.surface import _surface, surface_distances
from attunet.metrics.surface_dice import surface_dice

SPACING = (1.5, 2.0, 7.0)


def distance(name: str) -> Callable[[np.ndarray, np.ndarray, Sequence[float]], float]:
    return lambda prediction, truth, spacing: getattr(surface_distances(prediction, truth, spacing), name)


hd95, assd, mssd = distance("hd95"), distance("assd"), distance("mssd")


def ravd(prediction: np.ndarray, truth: np.ndarray) -> float:
    return float(ravd_from_confusion(confusion(prediction, truth, 2))[1])


def box(*corner_and_size: int, shape: tuple[int, int, int] = (20, 20, 12)) -> np.ndarray:
    x, y, z, a, b, c = corner_and_size
    mask = np.zeros(shape, dtype=bool)
    mask[x : x + a, y : y + b, z : z + c] = True
    return mask


def test_confusion_has_the_truth_in_rows_and_drops_ignored_voxels() -> None:
    truth = np.array([[0, 0, 1], [1, 2, 255]], dtype=np.uint8)
    prediction = np.array([[0, 1, 1], [0, 2, 2]], dtype=np.uint8)
    counts = confusion(prediction, truth, 3)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert pixel_accuracy(counts) == 3 / 5


def test_ratios_of_a_confusion_worked_by_hand() -> None:
    counts = np.array([[90, 10, 0], [20, 30, 0], [0, 0, 0]])
    np.testing.assert_allclose(dice_from_confusion(counts), [180 / 210, 60 / 90, np.nan])
    np.testing.assert_allclose(precision_from_confusion(counts), [90 / 110, 30 / 40, np.nan])
    np.testing.assert_allclose(recall_from_confusion(counts), [0.9, 0.6, np.nan])
    np.testing.assert_allclose(ravd_from_confusion(counts), [10, 20, np.nan])


@pytest.mark.parametrize(("prediction", "truth"), [([3], [0]), ([0], [3]), ([-1], [0]), ([0, 1], [0])])
def test_confusion_refuses_what_it_cannot_count(prediction: list[int], truth: list[int]) -> None:
    with pytest.raises(InputError):
        confusion(np.array(prediction), np.array(truth), 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, object])
def test_confusion_counts_integers_and_booleans_alone(dtype: type) -> None:
    labels = np.array([0, 1, 255])
    for name, maps in (("prediction", (labels.astype(dtype), labels)), ("truth", (labels, labels.astype(dtype)))):
        rule = "class indices must be integers or booleans"
        with pytest.raises(InputError, match=f"^{name}: {rule}, got {np.dtype(dtype)}$"):
            confusion(*maps, 2)
    with pytest.raises(InputError, match="got float64"):
        confusion(np.array([np.nan]), np.array([0]), 2)
    np.testing.assert_array_equal(confusion(np.array([True, False]), np.array([1, 1], np.int8), 2), [[0, 0], [1, 1]])


@pytest.mark.parametrize("size", [0, -1, np.nan, np.inf])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_voxel_has_a_size(size: float, axis: int) -> None:
    mask, spacing = box(1, 1, 0, 3, 3, 1, shape=(5, 5, 1)), [1.0, 2.0, 3.0]
    spacing[axis] = size
    with pytest.raises(InputError, match=r"^spacing: every voxel size must be finite and above 0 mm, got "):
        assd(mask, mask, spacing)


def test_equal_masks_are_perfect() -> None:
    mask = box(3, 4, 2, 8, 7, 5)
    assert [metric(mask, mask, SPACING) for metric in (hd95, assd, mssd)] == [0, 0, 0]
    assert ravd(mask, mask) == 0
    assert surface_dice(mask, mask, SPACING, 1) == 1


def test_distances_are_in_mm_along_the_right_axis() -> None:
    plate = box(4, 4, 3, 8, 8, 1)
    for axis, millimetres in enumerate(SPACING):
        moved = np.roll(plate, 1, axis=axis)
        assert mssd(moved, plate, SPACING) == pytest.approx(millimetres)
    above = np.roll(plate, 2, axis=2)
    for metric in (hd95, assd, mssd):
        assert metric(above, plate, SPACING) == pytest.approx(14)
    shares = [surface_dice(above, plate, SPACING, tolerance) for tolerance in (6.9, 7, 14)]
    assert shares[0] < 0.5 < shares[1] < shares[2] == 1


def test_one_far_voxel_moves_the_maximum_and_not_the_95th_percentile() -> None:
    truth = box(4, 4, 3, 8, 8, 4)
    prediction = truth.copy()
    prediction[4, 4, 11] = True  # five slices above the top one
    assert mssd(prediction, truth, SPACING) == pytest.approx(5 * 7)
    assert hd95(prediction, truth, SPACING) == 0
    assert 0 < assd(prediction, truth, SPACING) < 0.2


def test_average_distance_weighs_surface_voxels_and_not_directions() -> None:
    truth, prediction = np.zeros((9, 1), dtype=bool), np.zeros((9, 1), dtype=bool)
    truth[[0, 2, 4]] = True  # each voxel is a surface; directed distances 0, 2, 4 and 0
    prediction[0] = True
    assert assd(prediction, truth, (1, 1)) == pytest.approx((0 + 2 + 4 + 0) / 4)
    assert hd95(prediction, truth, (1, 1)) == pytest.approx(3.8)


def test_the_edge_of_the_image_is_no_surface() -> None:
    """An organ that the image cuts has its surface where it ends, not where the image does."""
    cut = box(0, 4, 3, 8, 8, 4)
    whole = box(6, 4, 3, 8, 8, 4)
    shorter = box(0, 4, 3, 6, 8, 4)
    assert mssd(shorter, cut, SPACING) == pytest.approx(2 * 1.5)
    # At the edge nothing is a surface: each of the two tubes has one end of 8 x 4 voxels, the block has two.
    assert _surface(cut).sum() == 8 * 8 * 4 - 7 * 6 * 2
    assert _surface(whole).sum() == 8 * 8 * 4 - 6 * 6 * 2


def test_a_mask_that_fills_the_image_has_the_edge_as_its_surface() -> None:
    full = np.ones((7, 7, 7), dtype=bool)
    hollow = full.copy()
    hollow[3, 3, 3] = False
    assert assd(full, full, (1, 1, 1)) == 0
    # From a corner to a voxel beside the hole
    assert mssd(hollow, full, (1, 1, 1)) == pytest.approx(np.hypot(np.hypot(3, 3), 2))


def test_one_slice_is_measured_as_an_image() -> None:
    disc = box(2, 2, 0, 15, 15, 1, shape=(20, 20, 1))
    inner = box(5, 5, 0, 9, 9, 1, shape=(20, 20, 1))
    for metric in (hd95, assd, mssd):
        assert metric(inner, disc, (1, 1, 5)) == metric(inner[..., 0], disc[..., 0], (1, 1))
    assert assd(inner, disc, (1, 1, 5)) > 3  # inside voxels are not surface, so nothing lies at distance 0


def test_conventions_for_empty_masks() -> None:
    some, nothing = box(4, 4, 3, 5, 5, 4), box(0, 0, 0, 0, 0, 0)
    diagonal = np.linalg.norm(np.array(some.shape) * SPACING)
    for metric in (hd95, assd, mssd):
        assert np.isnan(metric(nothing, nothing, SPACING))
        assert metric(some, nothing, SPACING) == pytest.approx(diagonal)
        assert metric(nothing, some, SPACING) == pytest.approx(diagonal)
    assert np.isnan(surface_dice(nothing, nothing, SPACING, 3))
    assert surface_dice(some, nothing, SPACING, 3) == surface_dice(nothing, some, SPACING, 3) == 0
    assert np.isnan(ravd(nothing, nothing))
    assert np.isnan(ravd(some, nothing))
    assert ravd(nothing, some) == 100

    invented, missed = case_metrics(some * 1, nothing * 1, SPACING, 3), case_metrics(nothing * 1, some * 1, SPACING, 3)
    for case in (invented, missed):  # class 1 in one map, class 2 in neither
        precision, recall = precision_from_confusion(case.counts)[1:], recall_from_confusion(case.counts)[1:]
        for values in (case.dice, precision, recall, case.surface_dice, case.chaos_score):
            np.testing.assert_array_equal(values, [0, np.nan])


def test_an_image_of_one_voxel_has_an_extent() -> None:
    voxel = np.ones((1, 1, 1), dtype=bool)
    for metric in (hd95, assd, mssd):
        assert metric(voxel, voxel, SPACING) == 0
        assert metric(voxel, ~voxel, SPACING) == metric(~voxel, voxel, SPACING) == SPACING[0]
    assert surface_dice(voxel, voxel, SPACING, 0) == 1


@pytest.mark.parametrize("shape", [(8, 8, 8), (1, 1, 1)])
def test_a_class_in_one_map_only_gets_no_points_in_a_small_image_either(shape: tuple[int, int, int]) -> None:
    some, nothing = np.zeros(shape, int), np.zeros(shape, int)
    some[0, 0, 0] = 1
    for maps in ((some, nothing), (nothing, some)):
        np.testing.assert_array_equal(case_metrics(*maps, (1, 2, 3), 3).chaos_score, [0, np.nan])


def test_a_class_in_both_maps_gets_points_for_distances_though_nothing_overlaps() -> None:
    truth = box(4, 4, 4, 1, 1, 1)
    case = case_metrics(np.roll(truth, 1, axis=0) * 1, truth * 1, (1, 2, 3), 2)
    np.testing.assert_allclose(case.chaos_score, (0 + 100 + (100 - 20 / 3) + (100 - 5 / 3)) / 4)


def test_ignored_voxels_reach_no_metric() -> None:
    truth = box(4, 4, 3, 8, 8, 4).astype(np.uint8)
    prediction = truth.copy()
    prediction[:3] = 1
    truth[:3] = 255
    case = case_metrics(prediction, truth, SPACING, 2)
    assert (case.dice[0], case.mssd_mm[0], case.ravd_percent[0], case.chaos_score[0]) == (1, 0, 0, 100)


def test_chaos_score_at_its_thresholds() -> None:
    score = chaos_score(
        np.array([1.0, 0.8, 0.79, 0.9, np.nan]),
        np.array([0.0, 5.0, 5.1, 2.5, np.nan]),
        np.array([0.0, 15.0, 15.1, 7.5, np.nan]),
        np.array([0.0, 60.0, 61.0, 30.0, np.nan]),
        in_both=np.array([True, True, True, True, False]),
    )
    np.testing.assert_allclose(score, [100, 20, 0, (90 + 50 + 50 + 50) / 4, np.nan], atol=1e-9)
