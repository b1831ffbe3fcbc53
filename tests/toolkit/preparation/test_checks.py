"""Each finding is planted in a source and comes out of `prepare` with its case, rule and figure;
clean sources have none.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from attunet.config import DataConfig
from attunet.errors import InputError
from attunet.preparation.checks import far_from_the_rest
from attunet.preparation.prepare import prepare
from attunet.sources.case_files import SourceOptions


@pytest.fixture
def seven(tmp_path: Path, write_case) -> Path:
    for number in range(7):
        write_case(tmp_path / "source", f"{number:02d}-T2SPIR", seed=number, shape=(48, 40, 8))
    return tmp_path / "source"


def change(path: Path, edit: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(edit(np.asarray(image.dataobj)), image.affine if affine is None else affine), path)


def findings(source: Path, **options: Any) -> list[tuple[str | None, str, float, str]]:
    store = prepare(source, source.parent / "store", DataConfig(), **options)
    return [(f["case"], f["rule"], f["figure"], f["level"]) for f in store.manifest["findings"]]


def without(organ: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda labels: np.where(labels == organ, 0, labels)


def test_a_clean_source_has_no_finding(seven: Path) -> None:
    assert findings(seven) == []


def test_real_cases_have_no_finding(real_cases: Path, tmp_path: Path) -> None:
    store = prepare(real_cases / "labelled", tmp_path / "store", DataConfig())
    assert store.manifest["findings"] == []


def test_empty_masks_and_missing_organs_are_named(seven: Path) -> None:
    change(seven / "02-T2SPIR-mask.nii.gz", np.zeros_like)
    change(seven / "04-T2SPIR-mask.nii.gz", without(4))
    found = findings(seven)
    assert ("02-T2SPIR", "empty-mask", 0, "warning") in found
    assert ("04-T2SPIR", "missing-class", 1, "warning") not in found  # spleen is in 5 of 7
    change(
        seven / "02-T2SPIR-mask.nii.gz", lambda labels: np.asarray(nib.load(seven / "01-T2SPIR-mask.nii.gz").dataobj)
    )
    shutil.rmtree(seven.parent / "store")
    assert findings(seven) == [("04-T2SPIR", "missing-class", 1, "warning")]
    for path in seven.glob("*-mask.nii.gz"):
        change(path, without(2))
    shutil.rmtree(seven.parent / "store")
    assert (None, "missing-class", 0, "warning") in findings(seven)


def test_a_class_that_was_not_drawn_is_not_missing(seven: Path) -> None:
    for case in ("02", "04"):
        change(seven / f"{case}-T2SPIR-mask.nii.gz", without(4))
    drawn, three = seven.parent / "drawn.json", ["liver", "right kidney", "left kidney"]
    drawn.write_text(json.dumps({"02-T2SPIR": three}))
    assert findings(seven, labelled_file=drawn) == [("04-T2SPIR", "missing-class", 1, "warning")]  # spleen: 5 of 6
    drawn.write_text(json.dumps({"02-T2SPIR": three, "04-T2SPIR": three}))
    shutil.rmtree(seven.parent / "store")
    assert findings(seven, labelled_file=drawn, strict=True) == []


def test_swapped_kidneys_are_seen_however_the_case_is_stored(seven: Path) -> None:
    swap = np.array([0, 1, 3, 2, 4], dtype=np.int16)
    change(seven / "03-T2SPIR-mask.nii.gz", lambda labels: swap[labels])
    for ending in ("src", "mask"):
        path = seven / f"03-T2SPIR-{ending}.nii.gz"
        nib.save(nib.load(path).as_reoriented(np.array([[1, -1], [0, -1], [2, 1]])), path)
    ((case, rule, figure, level),) = findings(seven)
    assert (case, rule, level) == ("03-T2SPIR", "swapped-sides", "warning")
    assert -50 < figure < -20  # mm


def test_an_organ_far_larger_than_elsewhere_is_named(seven: Path) -> None:
    change(seven / "05-T2SPIR-mask.nii.gz", lambda labels: np.where(labels == 0, 3, labels))
    assert [f[:2] for f in findings(seven)] == [("05-T2SPIR", "volume-outlier")]


def test_intensities_spacing_and_slices_that_stand_out_are_named(seven: Path, write_case) -> None:
    change(seven / "01-T2SPIR-src.nii.gz", lambda image: image // 20)
    change(seven / "02-T2SPIR-src.nii.gz", np.zeros_like)
    write_case(seven, "03-T2SPIR", seed=3, shape=(48, 40, 8), spacing=(4.0, 4.0, 8.0))
    image = np.asarray(nib.load(seven / "04-T2SPIR-src.nii.gz").dataobj).copy()
    image[:, :, 4] = 3 * image.max() - image[:, :, 4]
    change(seven / "04-T2SPIR-src.nii.gz", lambda _: image)
    found = {f[:2] for f in findings(seven)}
    assert {("01-T2SPIR", "intensity-outlier"), ("02-T2SPIR", "constant-image"), ("04-T2SPIR", "slice-jump")} <= found
    assert {("03-T2SPIR", "spacing-outlier"), ("03-T2SPIR", "size-outlier"), ("03-T2SPIR", "volume-outlier")} <= found
    assert {case for case, _ in found} == {"01-T2SPIR", "02-T2SPIR", "03-T2SPIR", "04-T2SPIR"}


def test_intensities_of_another_scale_are_named(seven: Path) -> None:
    change(seven / "01-T2SPIR-src.nii.gz", lambda image: image + 1024)
    ((case, rule, figure, level),) = findings(seven)
    assert (case, rule, level) == ("01-T2SPIR", "intensity-outlier", "warning")
    assert 2 < figure < 20  # in deviations of the voxels of a case


def test_images_of_one_value_are_no_duplicates_of_each_other(seven: Path) -> None:
    for number in (1, 2):
        change(seven / f"{number:02d}-T2SPIR-src.nii.gz", np.zeros_like)
    assert {f[1] for f in findings(seven)} == {"constant-image"}


def test_a_mask_on_another_grid_is_a_warning_near_and_an_error_far(seven: Path) -> None:
    path = seven / "06-T2SPIR-mask.nii.gz"
    affine = nib.load(path).affine.copy()
    affine[0, 3] += 1.0  # half a voxel
    change(path, lambda labels: labels, affine)
    ((case, rule, figure, level),) = findings(seven)
    assert (case, rule, level) == ("06-T2SPIR", "grid-mismatch", "warning")
    assert figure == pytest.approx(0.5, abs=1e-3)
    affine[0, 3] += 30
    change(path, lambda labels: labels, affine)
    with pytest.raises(InputError, match=r"06-T2SPIR: the mask's grid lies 15\.5 voxels from the image's"):
        prepare(seven, seven.parent / "other", DataConfig())
    assert not (seven.parent / "other.partial").exists()


def test_a_mask_stored_along_other_axes_is_turned_to_its_image(seven: Path) -> None:
    expected = prepare(seven, seven.parent / "a", DataConfig())
    labels = expected.read_source("06-T2SPIR")[1]
    path = seven / "06-T2SPIR-mask.nii.gz"
    nib.save(nib.load(path).as_reoriented(np.array([[1, -1], [2, 1], [0, -1]])), path)
    found = prepare(seven, seven.parent / "b", DataConfig())
    assert found.manifest["findings"] == []
    np.testing.assert_array_equal(found.label("06-T2SPIR"), expected.label("06-T2SPIR"))
    np.testing.assert_array_equal(found.read_source("06-T2SPIR")[1], labels)


def test_the_same_scan_under_two_patients_stays_in_one_fold(seven: Path) -> None:
    image = nib.load(seven / "01-T2SPIR-src.nii.gz").as_reoriented(np.array([[1, 1], [0, -1], [2, 1]]))
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj).astype(np.float32), image.affine), seven / "07-T2SPIR-src.nii")
    nib.save(
        nib.load(seven / "01-T2SPIR-mask.nii.gz").as_reoriented(np.array([[1, 1], [0, -1], [2, 1]])),
        seven / "07-T2SPIR-mask.nii",
    )
    for seed in range(3):
        store = prepare(seven, seven.parent / f"dealt-{seed}", DataConfig(), seed=seed, folds=4)
        assert [(f["case"], f["rule"], f["level"]) for f in store.manifest["findings"]] == [
            ("07-T2SPIR", "duplicate", "warning")
        ]
        assert any({"01-T2SPIR", "07-T2SPIR"} <= set(store.split(fold)[1]) for fold in range(4))
        assert sorted(case for fold in range(4) for case in store.split(fold)[1]) == [case.name for case in store.cases]
    splits = seven.parent / "mine.json"
    splits.write_text(json.dumps({"schema": 1, "folds": [["00", "01", "02"], ["03", "04", "05", "06", "07"]]}))
    with pytest.raises(
        InputError, match=r"07-T2SPIR: has the same voxels as 01-T2SPIR, which is in another fold.*\[duplicate\]"
    ):
        findings(seven, splits_file=splits)
    for ending in ("src", "mask"):
        (seven / f"07-T2SPIR-{ending}.nii").rename(seven / f"01-again-{ending}.nii")
    assert [f[1:] for f in findings(seven)] == [("duplicate", 2, "warning")]


def with_test_part(seven: Path, copies: int) -> Path:
    """Two training and two test patients; the first of the test part have the first training patients' scans."""
    source = seven.parent / "parts"
    for number, name in enumerate("abde"):
        part = source / ("test" if name in "de" else "training")
        for kind, folder in (("src", "images"), ("mask", "labels")):
            (part / folder).mkdir(parents=True, exist_ok=True)
            of = number - 2 if 2 <= number < 2 + copies else number
            shutil.copy(seven / f"{of:02d}-T2SPIR-{kind}.nii.gz", part / folder / f"{name}.nii.gz")
    return source


def test_a_training_scan_that_is_in_the_test_part_too_is_not_trained_on(seven: Path) -> None:
    store = prepare(with_test_part(seven, 1), seven.parent / "store", DataConfig())
    assert store.split("all") == (["training_b"], ["test_d", "test_e", "training_a"])
    assert store.split(0) == ([], ["training_b"])
    ((case, text),) = [(f.case, f.text) for f in store.findings if f.rule == "duplicate"]
    assert (case, text.partition(";")[2]) == ("training_a", " folds and the test set do not part them")


def test_a_test_part_with_every_training_scan_is_one_line(seven: Path) -> None:
    source = with_test_part(seven, 2)
    with pytest.raises(InputError, match=r"none is left to train on; `--read published-split=mix` takes no test set"):
        prepare(source, seven.parent / "store", DataConfig())
    assert not (seven.parent / "store.partial").exists()
    mixed = SourceOptions(choices={"published-split": "mix"})
    store = prepare(source, seven.parent / "store", DataConfig(), options=mixed)
    assert sorted(map(sorted, store.splits.folds)) == [["test_d", "training_a"], ["test_e", "training_b"]]


def test_an_image_without_a_mask_is_in_no_fold_that_it_could_leak_into(seven: Path) -> None:
    shutil.copy(seven / "01-T2SPIR-src.nii.gz", seven / "07-T2SPIR-src.nii.gz")
    splits = seven.parent / "mine.json"
    splits.write_text(json.dumps({"schema": 1, "folds": [["00", "01", "02"], ["03", "04", "05", "06"]]}))
    found = findings(seven, splits_file=splits, allow_unlabelled=True)
    assert ("07-T2SPIR", "duplicate", 2, "warning") in found


def test_strict_takes_warnings_as_errors_and_writes_nothing(log_lines: list[str], seven: Path) -> None:
    change(seven / "02-T2SPIR-mask.nii.gz", np.zeros_like)
    with pytest.raises(InputError, match=r"02-T2SPIR: the mask is empty \[empty-mask\]"):
        prepare(seven, seven.parent / "store", DataConfig(), strict=True)
    assert any("warning: 02-T2SPIR: the mask is empty" in line for line in log_lines)
    assert sorted(p.name for p in seven.parent.iterdir()) == ["source"]


def test_a_few_cases_say_nothing_about_outliers_and_spread_is_no_outlier() -> None:
    assert far_from_the_rest({"a": 1, "b": 1, "c": 100}, 2) == []
    assert far_from_the_rest({str(n): 2.0**n for n in range(9)}, 2) == []
    assert [f[0] for f in far_from_the_rest({"a": 1, "b": 1.1, "c": 0.9, "d": 1, "e": 9}, 2)] == ["e"]
