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


@pytest.mark.parametrize(("num_scans", "drawn_in"), [(16, 8), (5, 3)])
def test_every_organ_is_drawn_in_half_of_the_scans(num_scans: int, drawn_in: int) -> None:
    drawn = [drawn_organs(number, num_scans) for number in range(num_scans)]
    assert len({tuple(organs) for organs in drawn}) == num_scans
    assert [sum(organ in organs for organs in drawn) for organ in ORGANS] == [drawn_in] * len(ORGANS)
    assert list(ORGANS) in drawn


def test_hidden_organs_are_background_in_training_scans_alone(tmp_path: Path) -> None:
    full, sources, training, test = tmp_path / "scans", tmp_path / "sources", CASES[1:6], [CASES[0], CASES[6]]
    full.mkdir()
    labels = np.array(CHAOS_MR.values, np.uint8).reshape(-1, 1, 1)
    for case in CASES:
        for kind in ("src", "mask"):
            nib.save(nib.Nifti1Image(labels, np.eye(4)), full / f"{case}-{kind}.nii.gz")
    partial = write_sources(sources, full, training, test)
    drawn = {case: drawn_organs(number, 5) for number, case in enumerate(training)}
    assert partial == {case: organs for case, organs in drawn.items() if len(organs) < len(ORGANS)}
    for case in CASES:
        values = np.asarray(nib.Nifti1Image.from_filename(sources / "hidden" / f"{case}-mask.nii.gz").dataobj)
        expected = ["background", *drawn.get(case, ORGANS)]
        assert [CHAOS_MR.names[CHAOS_MR.values.index(value)] for value in np.unique(values)] == expected
    assert len(list((sources / "half").glob("*-mask.nii.gz"))) == 5  # three of five, and the two of the test
    assert len(list((sources / "complete").glob("*-mask.nii.gz"))) == 3


def results_of(dice: dict[str, list[float]], folds: int = 1) -> dict:
    """Arms with one Dice per seed, the cases dealt to folds; each case is one thousandth better than the one before."""
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "fold": fold,
            "steps": 100,
            "training_scans": 16,
            "dice": {
                "mean": value,
                "per_class": dict.fromkeys(ORGANS, value),
                "per_case": {
                    case: dict.fromkeys(ORGANS, value + n / 1000)
                    for n, case in list(enumerate(CASES, start=-3))[fold::folds]
                },
            },
        }
        for arm, values in dice.items()
        for seed, value in enumerate(values)
        for fold in range(folds)
    ]
    return {"schema": 1, "environment": {}, "config": {}, "steps": 100, "drawn": [], "results": rows}


@pytest.mark.parametrize("folds", [1, len(CASES)])
def test_differences_are_paired_over_scans_after_the_mean_of_seeds(folds: int) -> None:
    results = results_of({ARMS[0].name: [0.90, 0.80], ARMS[2].name: [0.85, 0.83]}, folds)
    assert case_means(results, ARMS[2].name)[CASES[0]] == pytest.approx(0.84 - 0.003)
    _, first, second = table(results).splitlines()
    assert " 0.850 " in first
    assert " 0.840  -0.010 (-0.010 to -0.010)  0.850, 0.830 " in second
