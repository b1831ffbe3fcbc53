import dataclasses
import itertools
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import scipy.ndimage

from attunet.errors import InputError, RunError
from attunet.volumes.postprocess import postprocess
from attunet.volumes.predict import check_megapixels, predict_prepared, tiled
from attunet.volumes.slices import VolumeSlices
from attunet.volumes.spec import LARGEST, PreprocessSpec
from attunet.volumes.volume import Volume

SPEC = PreprocessSpec("LPS", 2, spacing_mm=1.7, size=(32, 32))
OTHERS = [
    np.array(list(zip(axes, flips, strict=True)))
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def network(slices: np.ndarray) -> np.ndarray:
    """Three classes from brightness and place, so that any mix-up of sides or slices shows."""
    rows, columns = np.mgrid[: slices.shape[2], : slices.shape[3]] / 32
    bright = slices.mean(axis=1)
    return np.stack([0 * bright, bright + rows - 0.8, 1.5 * bright - columns], axis=1).astype(np.float32)


def scan(seed: int = 0) -> nib.Nifti1Image:
    data = np.random.default_rng(seed).gamma(2, 100, (21, 26, 5)).astype(np.float32)
    oblique = np.array([[-1.4, 0.2, 0, 10], [0.2, 1.5, 0.1, -4], [0, -0.1, 6, 3], [0, 0, 0, 1.0]])
    return nib.Nifti1Image(data, oblique)


def volume_of(image: nib.Nifti1Image) -> Volume:
    return Volume(np.asarray(image.dataobj)[None], image.affine)


def test_the_same_scan_stored_in_any_of_48_ways_gets_the_same_labels() -> None:
    image = scan()
    labels = predict_prepared(network, VolumeSlices(volume_of(image), SPEC))
    assert labels.shape == image.shape
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 1, 2}
    as_image = nib.Nifti1Image(labels, image.affine)
    for other in OTHERS:
        found = predict_prepared(network, VolumeSlices(volume_of(image.as_reoriented(other)), SPEC))
        np.testing.assert_array_equal(found, np.asarray(as_image.as_reoriented(other).dataobj))


def test_the_largest_part_of_every_class_alone_where_that_is_asked_for() -> None:
    slices = VolumeSlices(volume_of(scan()), SPEC)
    every = predict_prepared(network, slices)
    kept = predict_prepared(network, slices, postprocessing=LARGEST)
    np.testing.assert_array_equal(kept, postprocess(every, 3, slices.grid.native_spacing, LARGEST))
    assert (kept != every).any()


def test_batches_do_not_change_the_result() -> None:
    spec = PreprocessSpec("LPS", 2, spacing_mm=1.7, size=(32, 32), context_slices=3)
    slices = VolumeSlices(volume_of(scan()), spec)
    expected = predict_prepared(network, slices, batch_size=5)
    for batch_size in (1, 2, 64):
        np.testing.assert_array_equal(predict_prepared(network, slices, batch_size=batch_size), expected)


def test_the_network_sees_whole_slices_in_multiples_of_16() -> None:
    shapes = []

    def spy(slices: np.ndarray) -> np.ndarray:
        shapes.append(slices.shape)
        assert slices.dtype == np.float32
        return network(slices)

    volume = Volume(np.zeros((1, 90, 70, 5), np.int16), np.diag([1.7, 1.7, 5, 1]))
    predict_prepared(spy, VolumeSlices(volume, SPEC), batch_size=4)
    assert shapes == [(4, 1, 80, 96), (1, 1, 80, 96)]


def test_logits_that_are_not_finite_are_an_error() -> None:
    slices = VolumeSlices(volume_of(scan()), SPEC)
    with pytest.raises(RunError, match="logits must be finite, those of slices 0 to 4"):
        predict_prepared(lambda slices: np.full((len(slices), 2, *slices.shape[2:]), np.nan), slices)


def test_large_slices_run_in_tiles_without_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = set()

    def pointwise(slices: np.ndarray) -> np.ndarray:
        sizes.add(slices.shape[2:])
        return np.stack([slices[:, 0], -2 * slices[:, 0]], axis=1)

    def local(slices: np.ndarray) -> np.ndarray:
        return pointwise(scipy.ndimage.uniform_filter(slices, size=(1, 1, 5, 5), mode="nearest"))

    slices = np.random.default_rng(0).normal(size=(2, 1, 304, 464)).astype(np.float32)
    np.testing.assert_array_equal(tiled(local)(slices), local(slices))
    sizes.clear()
    for name, pixels in (("MAX_PIXELS", 150 * 150), ("TILE", 96), ("OVERLAP", 32)):
        monkeypatch.setattr(f"attunet.volumes.predict.{name}", pixels)
    np.testing.assert_allclose(tiled(pointwise)(slices), pointwise(slices), atol=1e-5)
    assert sizes == {(96, 96), (304, 464)}
    error = np.abs(tiled(local)(slices) - local(slices))
    assert error.max() < 0.1 * np.abs(local(slices)).max()  # what a tile lacks beyond its edge weighs little there


def test_memory_does_not_grow_with_the_slices_but_for_scan_and_labels() -> None:
    spec = PreprocessSpec("LPS", 2, spacing_mm=0.5, size=(128, 128))

    def peak(num_slices: int) -> int:
        volume = Volume(np.ones((1, 64, 64, num_slices), np.int16), np.diag([1.0, 1.0, 5.0, 1.0]))
        tracemalloc.start()
        predict_prepared(network, VolumeSlices(volume, spec))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    of_a_prepared_slice = 4 * 128 * 128
    assert (peak(200) - peak(40)) / 160 < 0.5 * of_a_prepared_slice


@pytest.mark.parametrize(
    ("shape", "spacing", "named"),
    [
        ((1, 16000, 1), (1.6, 1.6, 1.6), None),  # long, and hardly larger than its window
        (
            (1, 1, 40000),
            (1.6, 1.6, 1.6),
            r"40,000 slices of 192 × 192 .* are 1,475 megapixels, at most 512 .*--max-mega",
        ),
        ((32, 32, 4), (400.0, 400.0, 5.0), r"a slice of 8000 × 8000 pixels .* are 64 megapixels, at most 16 are allow"),
        ((512, 512, 4000), (0.8, 0.8, 0.8), None),
        ((4096, 4096, 1), (1.6, 1.6, 5.0), None),
    ],
)
def test_work_is_known_from_the_header_and_bounded(
    shape: tuple[int, ...], spacing: tuple[float, ...], named: str | None
) -> None:
    """Arrays of these shapes that take no memory: no voxel is read."""
    volume = Volume(np.broadcast_to(np.int16(0), (1, *shape)), np.diag([*spacing, 1.0]))
    spec = dataclasses.replace(SPEC, spacing_mm=1.6, size=(192, 192))
    if named is None:
        check_megapixels(volume, spec)
        return
    with pytest.raises(InputError, match=named):
        check_megapixels(volume, spec)
    check_megapixels(volume, spec, 2**12)
