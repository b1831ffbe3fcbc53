"""What an evaluation keeps of its cases: the right way round, in 8 bits, within a size."""

from pathlib import Path

import numpy as np

from attunet.benchmarks.evaluation.saved_cases import (
    limit_images,
    load_arrays,
    load_case,
    save_case,
    save_prediction,
    worst_first,
)
from attunet.evaluate_case import LabelledCase
from attunet.volumes.spec import PreprocessSpec
from attunet.volumes.volume import Volume

SCAN = PreprocessSpec(orientation="LPS", slice_axis=2, spacing_mm=None, size=(32, 32))
PICTURE = PreprocessSpec(
    orientation=None, slice_axis=2, spacing_mm=None, size=(32, 32), normalization="none", num_channels=3
)
LPS_AFFINE = np.diag([-1.5, -2.0, 8.0, 1.0])


def drawn(volume: Volume, labels: np.ndarray) -> LabelledCase:
    return LabelledCase("case", volume, labels, np.ones(3, dtype=bool))


def test_a_scan_is_kept_in_ras_with_its_values_and_without_its_place(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 1200, (1, 5, 6, 4)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 3, (5, 6, 4)).astype(np.uint8)
    affine = LPS_AFFINE.copy()
    affine[:3, 3] = (80, 90, -400)
    volume = Volume(data, affine)
    save_case(tmp_path, drawn(volume, labels), SCAN)
    save_prediction(tmp_path / "prediction-0.npz", labels, volume, SCAN)
    case = load_case(tmp_path)
    assert case is not None
    assert np.array_equal(case.truth, labels[::-1, ::-1])
    assert np.array_equal(load_arrays(tmp_path / "prediction-0.npz")["prediction"], case.truth)
    values = case.low + (case.high - case.low) * case.image[0] / 255
    assert np.abs(values - data[0, ::-1, ::-1]).max() < 1200 / 255 + 5
    assert case.spacing == (1.5, 2.0, 8.0)
    assert case.oriented
    assert not any(
        np.allclose(array, 80) for array in load_arrays(tmp_path / "image.npz").values() if array.dtype.kind == "f"
    )


def test_ct_keeps_its_window(tmp_path: Path) -> None:
    data = np.linspace(-1000, 3000, 64, dtype=np.float32).reshape(1, 4, 4, 4)
    ct = PreprocessSpec(
        orientation="LPS", slice_axis=2, spacing_mm=None, size=(32, 32), normalization="ct", window=(-160.0, 240.0)
    )
    save_case(tmp_path, drawn(Volume(data, LPS_AFFINE), np.zeros((4, 4, 4))), ct)
    case = load_case(tmp_path)
    assert case is not None
    assert (case.low, case.high) == (-360, 440)


def test_a_large_picture_is_thinned_to_what_browsers_show(tmp_path: Path) -> None:
    picture = np.zeros((3, 3000, 10, 1), dtype=np.uint8)
    picture[0, 2000:] = 200
    volume, labels = Volume(picture, np.eye(4), unit="pixel"), (picture[0] > 0).astype(np.uint8)
    save_case(tmp_path, drawn(volume, labels), PICTURE)
    save_prediction(tmp_path / "prediction-0.npz", labels, volume, PICTURE)
    case = load_case(tmp_path)
    assert case is not None
    assert case.image.shape == (3, 1500, 10, 1)
    assert case.spacing == (2.0, 1.0, 1.0)
    assert (case.low, case.high) == (0, 255)
    assert np.array_equal(case.image[0] > 0, case.truth > 0)
    assert np.array_equal(load_arrays(tmp_path / "prediction-0.npz")["prediction"], case.truth)


def test_the_images_of_the_worst_cases_stay_within_the_limit(tmp_path: Path, log_lines: list[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1, 40, 40, 20)).astype(np.float32)
    for name in "abc":
        save_case(tmp_path / name, drawn(Volume(noise, LPS_AFFINE), np.zeros((40, 40, 20))), SCAN)
    limit_images(tmp_path, ["b", "a", "c"], max_mb=0.07)
    assert [name for name in "abc" if load_case(tmp_path / name)] == ["a", "b"]
    assert log_lines == ["images of the 2 worst of 3 cases are kept for the report: all would be over 0.07 MB"]


def test_the_worst_case_is_that_of_the_lowest_mean_of_what_is_defined() -> None:
    nan = float("nan")
    dice = {"partly drawn": [[0.9, nan, nan]], "whole": [[0.5, 0.6, 0.7]], "nothing": [[nan, nan, nan]]}
    assert worst_first(dice) == ["whole", "partly drawn", "nothing"]
