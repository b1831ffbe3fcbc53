import numpy as np

from attunet.components import keep_largest_components, largest_shares


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
