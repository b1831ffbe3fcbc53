import numpy as np
import pytest

from attunet.volumes.postprocess import eroded_shares, largest_shares, postprocess
from attunet.volumes.spec import LARGEST, UNTOUCHED, Postprocessing


def keep_largest_components(
    labels: np.ndarray, num_classes: int, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), erosion_mm: float = 0.0
) -> np.ndarray:
    return postprocess(labels, num_classes, spacing, Postprocessing(True, erosion_mm))


def test_only_the_largest_part_of_each_class_stays():
    labels = np.zeros((12, 12, 3), np.uint8)
    labels[0:4, 0:4] = 1  # 48 voxels
    labels[6:8, 6:8] = 1
    labels[4:6, 0:4] = 2  # touches class 1, is the larger part of class 2
    labels[10:12, 10:12, 0] = 2
    kept = keep_largest_components(labels, 4)
    assert (kept[0:4, 0:4] == 1).all()
    assert (kept[4:6, 0:4] == 2).all()
    assert kept.astype(bool).sum() == 48 + 24
    assert labels[6, 6, 0] == 1, "the input must stay as it was"


def test_parts_that_touch_by_an_edge_alone_are_two():
    labels = np.zeros((4, 4, 1), np.uint8)
    labels[0:2, 0:2] = 1
    labels[2, 2] = 1
    assert keep_largest_components(labels, 2)[2, 2, 0] == 0


def test_nothing_found_stays_nothing():
    assert not keep_largest_components(np.zeros((3, 3, 3), np.uint8), 5).any()


def test_the_share_of_the_largest_part():
    labels = np.zeros((4, 4, 1), np.uint8)
    labels[0:3, 0] = 1
    labels[3, 3] = 1
    labels[0, 2] = 3
    assert largest_shares(labels, 5) == {1: 0.75, 3: 1.0}


def dumbbell(neck: int, depth: int = 1) -> np.ndarray:
    """Class 1: a square of 10 × 10 and one of 8 × 8 pixels, joined by a neck so many pixels wide."""
    labels = np.zeros((30, 14, depth), np.uint8)
    labels[1:11, 2:12] = 1
    labels[11:18, 3 : 3 + neck] = 1
    labels[18:26, 3:11] = 1
    return labels


@pytest.mark.parametrize(
    ("neck", "spacing", "erosion_mm", "cut"),
    [
        (2, 1.0, 0.0, False),
        (2, 1.0, 1.0, True),
        (3, 1.0, 1.0, False),  # a box of three pixels passes
        (3, 1.0, 2.0, True),
        (2, 2.0, 1.9, False),  # not one whole pixel
        (2, 2.0, 2.0, True),
        (2, 0.1, 0.3, True),  # three pixels, though 0.3 / 0.1 is less than three
    ],
)
@pytest.mark.parametrize("depth", [1, 4])
def test_what_a_neck_joins_goes_where_the_erosion_cuts_it(
    neck: int, spacing: float, erosion_mm: float, cut: bool, depth: int
) -> None:
    labels = dumbbell(neck, depth)
    kept = keep_largest_components(labels, 2, (spacing, spacing, 50.0), erosion_mm)
    assert (kept[1:11, 2:12] == 1).all()
    assert (kept[18:26] == 0).all() == cut
    if not cut:
        np.testing.assert_array_equal(kept, labels)


def test_the_neck_is_shared_between_the_pieces_that_it_joins() -> None:
    kept = keep_largest_components(dumbbell(neck=2), 2, (1.0, 1.0, 1.0), 1.0)
    assert kept[11:14, 3:5].all()
    assert not kept[15:, :].any()


@pytest.mark.parametrize("flip", [1, -1])
def test_a_voxel_equally_far_from_two_pieces_stays_with_the_largest(flip: int) -> None:
    kept = keep_largest_components(dumbbell(neck=2)[::flip], 2, (1.0, 1.0, 1.0), 1.0)[::flip]
    assert kept[14, 3:5].all()  # five voxels from either eroded square


def test_a_neck_of_two_slices_is_cut_where_slices_are_thin_enough() -> None:
    labels = np.moveaxis(dumbbell(neck=2, depth=6), 1, 2)  # (30, 6, 14): the neck is narrow from slice to slice alone
    assert not keep_largest_components(labels, 2, (3.0, 3.0, 3.0), 3.0)[18:].any()
    np.testing.assert_array_equal(keep_largest_components(labels, 2, (3.0, 3.0, 8.0), 3.0), labels)


def test_a_part_of_which_the_erosion_leaves_nothing_stays_whole() -> None:
    flat = np.zeros((12, 12, 5), np.uint8)
    flat[:, :, 0], flat[:6, :, 4], flat[5:7, 5:7, 1:4] = 1, 1, 1  # two plates, one voxel thick, and a pin
    np.testing.assert_array_equal(keep_largest_components(flat, 2, (3.0, 3.0, 3.0), 3.0), flat)


@pytest.mark.parametrize("thickness", [1, 2])
def test_a_thin_part_of_a_volume_stays_whole_and_a_picture_is_cut(thickness: int) -> None:
    labels = np.zeros((30, 14, 5), np.uint8)
    labels[..., 2 : 2 + thickness] = dumbbell(neck=2)
    np.testing.assert_array_equal(keep_largest_components(labels, 2, (1.0, 1.0, 1.0), 1.0), labels)
    assert eroded_shares(labels, 2, (1.0, 1.0, 1.0), (1,)) == {1: (1.0,)}
    assert not keep_largest_components(labels, 2, (1.0, 1.0, 50.0), 1.0)[18:].any(), "not eroded across slices of 50 mm"
    assert not keep_largest_components(labels[..., 2:3], 2, (1.0, 1.0, 1.0), 1.0)[18:].any()


def test_another_class_is_not_touched() -> None:
    labels = dumbbell(neck=2)
    labels[12:17, 9:11] = 2
    kept = keep_largest_components(labels, 3, (1.0, 1.0, 1.0), 2.0)
    np.testing.assert_array_equal(kept == 2, labels == 2)


def test_what_stays_of_each_class_at_every_erosion() -> None:
    labels = dumbbell(neck=3)
    labels[12:17, 9:11] = 2
    shares = eroded_shares(labels, 3, (1.0, 1.0, 1.0), (0, 1, 2, 3))
    whole = (labels == 1).sum()
    assert shares[2] == (1.0, 1.0, 1.0, 1.0)
    assert shares[1][:2] == (1.0, 1.0)
    for share, erosion_mm in zip(shares[1][2:], (2, 3), strict=True):
        assert share == (keep_largest_components(labels, 3, (1.0, 1.0, 1.0), erosion_mm) == 1).sum() / whole
        assert 0.5 < share < 0.7


def test_a_voxel_of_next_to_no_size_takes_no_memory() -> None:
    labels = dumbbell(neck=2)
    np.testing.assert_array_equal(keep_largest_components(labels, 2, (1e-12, 1e-12, 1.0), 8.0), labels)


def test_ways_of_finishing_are_ordered_and_named() -> None:
    ways = [UNTOUCHED, LARGEST, Postprocessing(True, 6.0)]
    assert sorted(reversed(ways)) == ways
    necks = "largest component, necks under 12 mm cut"
    assert [way.words for way in ways] == ["all components", "largest component", necks]
    labels = dumbbell(neck=2)
    assert postprocess(labels, 2, (1.0, 1.0, 1.0), UNTOUCHED) is labels
    np.testing.assert_array_equal(
        postprocess(labels, 2, (6.0, 6.0, 6.0), ways[2]), keep_largest_components(labels, 2, (1.0, 1.0, 1.0), 1.0)
    )


@pytest.mark.parametrize("erosion", [0.0, 1.0])
def test_parts_of_equal_size_all_stay_in_every_storage_order(erosion: float) -> None:
    labels = np.zeros((12, 9, 7), dtype=np.uint8)
    labels[1:4, 1:4, 1:4] = labels[7:10, 4:7, 2:5] = 1
    labels[0, 8, 6] = 1
    expected = labels.copy()
    expected[0, 8, 6] = 0
    for axes in ((0, 1, 2), (2, 0, 1), (1, 0, 2)):
        for flip in (1, -1):
            stored = np.ascontiguousarray(labels.transpose(axes)[::flip])
            kept = keep_largest_components(stored, 2, (1.0, 1.0, 1.0), erosion)
            np.testing.assert_array_equal(kept, expected.transpose(axes)[::flip])
