"""The comparison of trainings with partial labels: what is hidden, and the figures of its table."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.benchmarks.crossvalidation.partial_labels import (
    ARMS,
    ORGANS,
    case_means,
    drawn_organs,
    table,
    write_sources,
)
from attunet.classes import CHAOS_MR

CASES = [f"{number:02d}-T2SPIR" for number in range(1, 8)]


def test_every_organ_is_drawn_in_half_of_sixteen_scans() -> None:
    drawn = [drawn_organs(number) for number in range(16)]
    assert len({tuple(organs) for organs in drawn}) == 16
    assert [sum(organ in organs for organs in drawn) for organ in ORGANS] == [8] * len(ORGANS)


def test_hidden_organs_are_background_in_training_scans_alone(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    labels = np.array(CHAOS_MR.values, np.uint8).reshape(-1, 1, 1)
    for case in CASES:
        for kind in ("src", "mask"):
            nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "all" / f"{case}-{kind}.nii.gz")
    partial = write_sources(tmp_path, num_training=5, num_test=2, seed=0)
    assert partial == {case: drawn_organs(number) for number, case in enumerate(CASES[:5])}
    for number, case in enumerate(CASES):
        values = np.asarray(nib.Nifti1Image.from_filename(tmp_path / "hidden" / f"{case}-mask.nii.gz").dataobj)
        expected = ["background", *(drawn_organs(number) if number < 5 else ORGANS)]
        assert [CHAOS_MR.names[CHAOS_MR.values.index(value)] for value in np.unique(values)] == expected
    assert len(list((tmp_path / "half").glob("*-mask.nii.gz"))) == 5  # scans 1, 3, 5 and the two of the test
    assert len(list((tmp_path / "complete").glob("*-mask.nii.gz"))) == 2


def results_of(dice: dict[str, list[float]]) -> dict:
    """Arms with one Dice per seed; each case is one thousandth better than the one before."""
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "steps": 100,
            "training_scans": 16,
            "dice": {
                "mean": value,
                "per_class": dict.fromkeys(ORGANS, value),
                "per_case": {case: dict.fromkeys(ORGANS, value + n / 1000) for n, case in enumerate(CASES, start=-3)},
            },
        }
        for arm, values in dice.items()
        for seed, value in enumerate(values)
    ]
    return {"schema": 1, "environment": {}, "config": {}, "steps": 100, "drawn": {}, "results": rows}


def test_differences_are_paired_over_scans_after_the_mean_of_seeds() -> None:
    results = results_of({ARMS[0].name: [0.90, 0.80], ARMS[2].name: [0.85, 0.83]})
    assert case_means(results, ARMS[2].name)[CASES[0]] == pytest.approx(0.84 - 0.003)
    _, first, second = table(results).splitlines()
    assert " 0.850 " in first
    assert " 0.840  -0.010 (-0.010 to -0.010)  0.850, 0.830 " in second
