"""Real cases through preparation and back to the native grid."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.io.readers import read_mask, read_volume
from attunet.sources.find_cases import find_cases
from attunet.volumes.geometry import place
from attunet.volumes.predict import predict_prepared
from attunet.volumes.slices import Grid, VolumeSlices, assemble, make_grid, resample_labels, restore
from attunet.volumes.spec import PreprocessSpec
from attunet.volumes.volume import Volume


def training_labels(labels: np.ndarray, grid: Grid, num_classes: int) -> np.ndarray:
    return place(resample_labels(labels, grid, num_classes), grid.window, grid.offset, 0)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize(("spacing_mm", "size", "least"), [(1.6, 256, 0.985), (2.13, 192, 0.97)])
def test_every_organ_of_every_case_survives_preparation(
    real_cases: Path, spacing_mm: float, size: int, least: float
) -> None:
    spec = PreprocessSpec("LPS", 2, spacing_mm, (size, size))
    cases = find_cases(real_cases / "labelled").cases
    assert len(cases) == 6
    for case in cases:
        volume, labels = read_volume(case.images[0]), read_mask(case.labels[0]).data[0]
        grid = VolumeSlices(volume, spec, spec.size).grid
        prepared = training_labels(labels.astype(np.uint8), grid, 5)
        assert prepared.shape[1:] == (size, size)
        certain = np.eye(5, dtype=np.float32)[prepared].transpose(0, 3, 1, 2)
        back = assemble(restore(certain, grid), grid)
        figures = [dice(back == organ, labels == organ) for organ in range(1, 5)]
        assert min(figures) > least, (case.case, figures)


def network(slices: np.ndarray) -> np.ndarray:
    """Classes from brightness and place: sides, slices or rows mixed up would show."""
    rows, columns = np.mgrid[: slices.shape[2], : slices.shape[3]] / slices.shape[2]
    bright = slices[:, 0]
    scores = [0.4 + 0 * bright, bright - columns, bright - (1 - columns), 1.2 - np.abs(bright - 1) - rows, bright - 2]
    return np.stack(scores, axis=1).astype(np.float32)


@pytest.mark.parametrize(
    "change",
    [[[1, 1], [0, -1], [2, 1]], [[0, -1], [1, 1], [2, 1]], [[2, 1], [1, -1], [0, -1]], [[0, 1], [1, 1], [2, -1]]],
)
def test_a_case_stored_rotated_or_flipped_gets_the_same_labels(real_cases: Path, change: list[list[int]]) -> None:
    spec = PreprocessSpec("LPS", 2, 1.6, (256, 256))
    path = real_cases / "labelled/03-T2SPIR-src.nii.gz"
    image = nib.load(path)
    expected = predict_prepared(network, VolumeSlices(read_volume(path), spec))
    assert np.bincount(expected.ravel()).min() > 1000  # every class is there
    turned = image.as_reoriented(np.array(change))
    volume = Volume(np.asarray(turned.dataobj)[None], turned.affine)
    found = predict_prepared(network, VolumeSlices(volume, spec))
    np.testing.assert_array_equal(
        found, np.asarray(nib.Nifti1Image(expected, image.affine).as_reoriented(np.array(change)).dataobj)
    )


def test_an_organ_lies_on_its_own_side_of_the_prepared_slices(real_cases: Path) -> None:
    """Columns run to the patient's left: liver and right kidney come first."""
    for case in find_cases(real_cases / "labelled").cases:
        volume, labels = read_volume(case.images[0]), read_mask(case.labels[0]).data[0]
        prepared = training_labels(
            labels.astype(np.uint8), make_grid(volume, PreprocessSpec("LPS", 2, 1.6, (256, 256))), 5
        )
        liver, right, left, spleen = (np.nonzero(prepared == organ)[2].mean() for organ in range(1, 5))
        assert max(liver, right) < min(left, spleen)
