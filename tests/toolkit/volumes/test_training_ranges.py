"""An input unlike the training's is told, and one like it is not, whatever way its file is stored."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest

from attunet.io.readers import read_volume
from attunet.store import Store
from attunet.volumes.training_ranges import TrainingRanges, check_input
from attunet.volumes.volume import Volume


@pytest.fixture(scope="module")
def ranges(small_store: Store) -> TrainingRanges:
    found = small_store.ranges
    assert found is not None
    return found


@pytest.fixture(scope="module")
def volume(small_store: Store) -> Volume:
    return read_volume(small_store.source_root / "01-T2SPIR-src.nii.gz")


def rules(volume: Volume, ranges: TrainingRanges | None) -> list[str]:
    return [f.rule for f in check_input(volume, ranges, "LPS")]


def test_a_case_of_the_training_is_within_and_so_is_it_turned(volume: Volume, ranges: TrainingRanges) -> None:
    assert rules(volume, ranges) == []
    turned = nib.Nifti1Image(volume.data[0], volume.affine).as_reoriented(np.array([[2, 1], [0, -1], [1, 1]]))
    assert rules(Volume(np.asarray(turned.dataobj)[None], turned.affine), ranges) == []


def test_spacing_size_and_intensities_far_outside_are_told_with_their_figures(
    volume: Volume, ranges: TrainingRanges
) -> None:
    found = check_input(Volume(volume.data * 100, volume.affine @ np.diag([1, 1, 0.1, 1])), ranges, "LPS")
    assert [f.rule for f in found] == ["untrained-spacing", "untrained-size", "untrained-intensity"]
    assert "spacing along axis 2 (mm) is 0.8, training had 8 to 8" in found[0].text


def test_intensities_shifted_by_more_than_they_spread_are_told(volume: Volume, ranges: TrainingRanges) -> None:
    spread = float(volume.data.std())
    assert rules(Volume(volume.data + 0.5 * spread, volume.affine), ranges) == []
    assert rules(Volume(volume.data + 4 * spread, volume.affine), ranges) == ["untrained-intensity"]
    assert rules(Volume(volume.data * 3, volume.affine), ranges) == []  # another scale is no shift


def test_a_picture_for_a_model_of_scans_is_told(volume: Volume, ranges: TrainingRanges) -> None:
    assert rules(Volume(volume.data, np.eye(4), unit="pixel"), ranges) == ["untrained-unit"]


def test_what_is_not_known_is_not_judged(volume: Volume, ranges: TrainingRanges) -> None:
    strange = Volume(volume.data * 100 + 9000, volume.affine)
    assert rules(strange, None) == []
    assert rules(Volume(volume.data + 9000, volume.affine), dataclasses.replace(ranges, mean=())) == []
