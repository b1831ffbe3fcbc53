import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.classes import Classes
from attunet.config import DataConfig
from attunet.errors import InputError
from attunet.phantom import write_phantom
from attunet.preparation.facts_cache import scan_cases
from attunet.preparation.prepare import prepare
from attunet.preparation.scan_case import scan_case
from attunet.preparation.write_store import build_store
from attunet.sources.case_files import SourceOptions
from attunet.sources.find_cases import find_cases
from attunet.store import Store
from attunet.system.workers import MIN_TASKS_FOR_PROCESSES, over_cases


def fingerprint(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def rewrite(path: Path, data: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(data, nib.load(path).affine), path)


def in_folders(
    write_case,
    source: Path,
    names: str,
    values: tuple[int, ...],
    images: str = "images",
    labels: str = "labels",
    seed: int = 0,
) -> None:
    """Writes a case for each letter as `images/X.nii.gz` and `labels/X.nii.gz`."""
    for number, name in enumerate(names, start=seed):
        files = write_case(source.parent, name, seed=number, values=values)
        for path, folder in zip(files, (images, labels), strict=True):
            (source / folder).mkdir(parents=True, exist_ok=True)
            path.rename(source / folder / f"{name}.nii.gz")


def test_the_manifest_says_what_every_case_was_made_of(source: Path, tmp_path: Path) -> None:
    store = prepare(source, tmp_path / "store", DataConfig())
    entry = store.manifest["cases"][1]
    for file in (*entry["image_files"], *entry["label_files"]):
        assert hashlib.sha256((source / file["file"]).read_bytes()).hexdigest() == file["sha256"]
    for file, expected in entry["arrays_sha256"].items():
        assert hashlib.sha256((store.path / "cases" / str(entry["case"]) / file).read_bytes()).hexdigest() == expected
    assert sorted(entry["arrays_sha256"]) == ["image.npy", "label.npy"]
    assert store.manifest["schema"] == 4
    assert entry["native_shape"] == [48, 40, 6]
    assert store.case("02-T2SPIR").spacing == pytest.approx((2, 2, 8))
    labels = np.asarray(nib.load(source / "02-T2SPIR-mask.nii.gz").dataobj)
    assert entry["voxels_per_class"] == np.bincount(labels.ravel().astype(int), minlength=5).tolist()
    image = np.asarray(nib.load(source / "02-T2SPIR-src.nii.gz").dataobj)
    used = entry["intensity"][0]["used"]
    low, high = np.percentile(image, (0.5, 99.5))
    assert (used["low"], used["high"]) == pytest.approx((low, high))
    assert (used["shift"], used["scale"]) == pytest.approx(
        (np.clip(image, low, high).mean(), np.clip(image, low, high).std())
    )


def test_spacing_is_the_median_and_the_window_holds_every_label(tmp_path: Path, write_case) -> None:
    spacings = [1.0, 1.5, 2.5]
    for number, spacing in enumerate(spacings):
        write_case(
            tmp_path / "source", f"{number}-T2", seed=number, shape=(160, 150, 3), spacing=(spacing, spacing, 6.0)
        )
    store = prepare(tmp_path / "source", tmp_path / "store", DataConfig())
    assert store.spec.spacing_mm == 1.5
    assert store.spec.slice_axis == 2
    assert store.data_config.size == store.spec.size[0]
    assert store.spec.size[0] % 32 == 0
    assert store.manifest["findings"] == []
    assert all(free_border(store, case.name) >= 4 for case in store.cases)
    smaller = prepare(tmp_path / "source", tmp_path / "smaller", DataConfig(size=store.spec.size[0] - 32))
    assert min(free_border(smaller, case.name) for case in smaller.cases) < 8
    oblong = prepare(tmp_path / "source", tmp_path / "oblong", DataConfig(size=(64, 96)))
    assert oblong.data_config.size == (64, 96)
    assert oblong.image(oblong.cases[0].name).shape[2:] == oblong.spec.size == (64, 96)


def test_voxels_of_some_micrometres_and_of_some_hundred_millimetres_can_be_trained_on(
    tmp_path: Path, write_case
) -> None:
    for size in (0.002, 300.0):
        for number in range(2):
            write_case(tmp_path / f"{size}", f"{number}-T2", seed=number, spacing=(size, size, 3 * size))
        store = prepare(tmp_path / f"{size}", tmp_path / f"store-{size}", DataConfig())
        assert store.data_config.spacing_mm == size


def free_border(store: Store, case: str) -> int:
    """Pixels between the labels and the edge of the window."""
    rows, columns = (np.flatnonzero(store.label(case).any(axis=axes)) for axes in ((0, 2), (0, 1)))
    height, width = store.spec.size
    return int(min(rows[0], columns[0], height - 1 - rows[-1], width - 1 - columns[-1]))


def test_the_window_is_never_larger_than_the_images_need(tmp_path: Path, write_case) -> None:
    _, mask = write_case(tmp_path / "source", "1-T2", shape=(60, 50, 3))
    rewrite(mask, np.ones((60, 50, 3), np.uint8))
    assert prepare(tmp_path / "source", tmp_path / "store", DataConfig()).spec.size == (64, 64)


def test_classes_that_are_one_part_in_every_mask_are_kept_as_one(tmp_path: Path, write_case) -> None:
    masks = [write_case(tmp_path / "source", f"{number}-T2", seed=number)[1] for number in range(3)]
    mask = np.asarray(nib.load(masks[2]).dataobj).copy()
    for place in range(3):  # stray voxels, as many masks have
        mask[0, 2 * place, 0] = 1
    assert (mask == 1).sum() > 300
    rewrite(masks[2], mask)
    assert prepare(tmp_path / "source", tmp_path / "store", DataConfig()).data_config.largest_component is True
    chosen = prepare(tmp_path / "source", tmp_path / "chosen", DataConfig(largest_component=False))
    assert chosen.data_config.largest_component is False
    mask[-6:, -6:, -1] = 1  # a second part, of more than one in a hundred voxels
    rewrite(masks[2], mask)
    assert prepare(tmp_path / "source", tmp_path / "parts", DataConfig()).data_config.largest_component is False


def write_necks(folder: Path, write_case) -> None:
    """Three cases whose masks withstand 5 mm; the columns from 32 on are empty."""
    for number in range(3):
        _, path = write_case(folder, f"{number}-T2", shape=(40, 30, 4), spacing=(2.0, 2.0, 8.0))
        mask = np.zeros((40, 30, 4), np.uint8)
        # A neck of six pixels: five pass, seven do not
        mask[2:14, 4:16], mask[20:31, 4:16], mask[14:20, 7:13] = 1, 1, 1
        mask[5:15, 18:28] = 2
        rewrite(path, mask)


@pytest.mark.parametrize(
    ("changes", "expected"), [({}, 5.0), ({"component_erosion_mm": 3.0}, 3.0), ({"largest_component": False}, 0.0)]
)
def test_the_erosion_is_the_widest_that_masks_withstand(
    tmp_path: Path, write_case, changes: dict, expected: float
) -> None:
    write_necks(tmp_path / "source", write_case)
    store = prepare(tmp_path / "source", tmp_path / "store", DataConfig(**changes))
    assert store.data_config.component_erosion_mm == expected
    assert store.preprocessing.postprocessing.erosion_mm == expected
    assert store.spacing("0-T2") == (8.0, store.spec.spacing_mm, store.spec.spacing_mm)


def test_scattered_ignored_voxels_do_not_keep_necks_from_being_cut(tmp_path: Path, write_case) -> None:
    write_necks(tmp_path / "source", write_case)
    for path in (tmp_path / "source").glob("*-mask.nii.gz"):
        mask = np.asarray(nib.load(path).dataobj).copy()
        mask[34::2, ::3] = 9
        rewrite(path, mask)
    classes = Classes(("background", "a", "b"), (0, 1, 2)), 9
    store = prepare(tmp_path / "source", tmp_path / "store", DataConfig(), options=SourceOptions(classes=classes))
    assert (store.data_config.largest_component, store.data_config.component_erosion_mm) == (True, 5.0)
    facts = scan_case(find_cases(tmp_path / "source").cases[0])
    assert facts.largest_parts[9] < 0.1
    assert set(facts.eroded_parts) == {1, 2}


def test_an_erosion_without_largest_components_is_refused(source: Path, tmp_path: Path) -> None:
    for erosion_mm, words in ((5.0, "got 5"), (0.5, "got 0.5")):
        with pytest.raises(
            InputError, match=f"^data.component_erosion_mm: must be 0 .* data.largest_component false, {words}$"
        ):
            prepare(source, tmp_path / "store", DataConfig(largest_component=False, component_erosion_mm=erosion_mm))
    assert [p.name for p in tmp_path.iterdir()] == ["source"]
    store = prepare(source, tmp_path / "store", DataConfig(largest_component=False, component_erosion_mm=0.0))
    assert store.data_config.component_erosion_mm == 0


@pytest.mark.parametrize("one_part", [True, False])
def test_an_erosion_that_cuts_nothing_is_told(log_lines: list[str], tmp_path: Path, write_case, one_part: bool) -> None:
    for number in range(3 if one_part else 2):
        write_case(tmp_path / "source", f"{number}-T2", seed=number)
    store = prepare(tmp_path / "source", tmp_path / "store", DataConfig(component_erosion_mm=2.0))
    assert (store.data_config.largest_component, store.data_config.component_erosion_mm) == (
        one_part,
        2.0 if one_part else 0.0,
    )
    assert any("component_erosion_mm" in line and "not 2" in line for line in log_lines) != one_part


def test_masks_that_lose_little_on_average_withstand_an_erosion(tmp_path: Path, write_case) -> None:
    for number in range(4):
        _, path = write_case(tmp_path / "source", f"{number}-T2", shape=(60, 60, 4), spacing=(2.0, 2.0, 8.0))
        mask = np.zeros((60, 60, 4), np.uint8)
        mask[5:45, 5:45] = 1
        if number == 0:  # a knob of 24 pixels beside 1600, on a stalk of 1: 1.5 % of one mask in four
            mask[45, 20], mask[46:50, 18:24] = 1, 1
        rewrite(path, mask)
    store = prepare(tmp_path / "source", tmp_path / "store", DataConfig())
    assert store.data_config.component_erosion_mm == 8.0


def test_two_masks_do_not_show_that_a_class_is_one_part(tmp_path: Path, write_case) -> None:
    for number in range(2):
        write_case(tmp_path / "source", f"{number}-T2", seed=number)
    assert prepare(tmp_path / "source", tmp_path / "store", DataConfig()).data_config.largest_component is False


def test_a_window_that_cuts_organs_is_a_warning_with_its_figure(
    log_lines: list[str], tmp_path: Path, write_case
) -> None:
    write_case(tmp_path / "source", "1-T2", shape=(100, 100, 3), spacing=(1.0, 1.0, 5.0))
    store = prepare(tmp_path / "source", tmp_path / "store", DataConfig(size=64))
    window, finding = store.manifest["findings"]
    assert (window["case"], window["rule"], window["figure"]) == (None, "small-window", 0.64)
    assert (finding["case"], finding["rule"], finding["level"]) == ("1-T2", "window-cuts-labels", "warning")
    labels = np.asarray(nib.load(tmp_path / "source/1-T2-mask.nii.gz").dataobj)
    assert finding["figure"] == pytest.approx(
        1 - np.count_nonzero(labels[18:82, 18:82]) / np.count_nonzero(labels), abs=1e-6
    )
    assert any(line.startswith("warning: 1-T2: the training window cuts off") for line in log_lines)
    with pytest.raises(InputError, match=r"data set: .* window of 64 × 64 pixels shows 64% .* \[small-window\]"):
        prepare(tmp_path / "source", tmp_path / "strict", DataConfig(size=64), strict=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source", "store"]


@pytest.mark.parametrize(("side", "size"), [(40, 64), (100, 128), (300, 320), (700, 512)])
def test_the_window_of_small_organs_shows_whole_slices(
    log_lines: list[str], tmp_path: Path, side: int, size: int
) -> None:
    """A network that has seen the surroundings of an organ alone takes other places for it."""
    for kind, values in (("images", np.random.default_rng(0).normal(50, 9, (side, side, 3))), ("labels", None)):
        if values is None:
            values = np.zeros((side, side, 3))
            values[side // 2 - 5 : side // 2 + 5, side // 2 - 5 : side // 2 + 5] = 1
        (tmp_path / "source" / kind).mkdir(parents=True)
        for name in ("a", "b"):
            image = nib.Nifti1Image(values.astype(np.int16), np.diag([1.0, 1.0, 5.0, 1.0]))
            nib.save(image, tmp_path / "source" / kind / f"{name}.nii.gz")
    store = prepare(tmp_path / "source", tmp_path / "store", DataConfig(), folds=2)
    assert store.spec.size == (size, size)
    assert any("[small-window]" in line for line in log_lines) == (side == 700)


def test_slices_are_cut_along_the_coarsest_axis_of_the_data_set(tmp_path: Path, write_case) -> None:
    for number in range(2):
        write_case(tmp_path / "source", f"{number}-T2", seed=number, shape=(30, 6, 40), spacing=(2.0, 9.0, 2.0))
    store = prepare(tmp_path / "source", tmp_path / "store", DataConfig())
    assert (store.spec.slice_axis, store.cases[0].num_slices) == (1, 6)


@pytest.mark.parametrize(
    ("shape", "spacing", "axis"),
    [
        ((24, 20, 1), (2.0, 2.0, 1.0), 2),  # a picture kept as a scan of one slice, its thickness written as 1
        ((1, 24, 20), (1.0, 2.0, 2.0), 0),
        ((24, 1, 20), (2.0, 9.0, 2.0), 1),
        ((24, 20, 6), (1.0, 1.0, 1.0), 2),
        ((5, 24, 20), (1.0, 1.0, 1.0), 0),  # far shorter, and nothing says how far apart the slices are
        ((16, 24, 20), (1.0, 1.0, 1.0), 2),
        ((5, 24, 20), (1.0, 1.0, 3.0), 2),  # the spacing says more than the lengths
    ],
)
def test_the_slice_axis_is_that_of_length_1_or_the_coarsest_or_far_the_shortest(
    tmp_path: Path, shape: tuple[int, int, int], spacing: tuple[float, float, float], axis: int
) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        labels = np.zeros(shape, np.uint8)
        labels[tuple(slice(n // 3, n // 3 + max(1, n // 3)) for n in shape)] = 1
        for kind, array in (("src", rng.integers(0, 100, shape).astype(np.int16)), ("mask", labels)):
            nib.save(
                nib.Nifti1Image(array, np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])),
                tmp_path / f"source-{name}-{kind}.nii.gz",
            )
    assert (
        prepare(tmp_path, tmp_path.with_name(f"{tmp_path.name}-store"), DataConfig(), folds=2).spec.slice_axis == axis
    )


@pytest.mark.parametrize("values", [(0, 63, 126, 189, 252), (0, 80, 160, 240, 255)])
def test_grey_values_read_as_the_same_organs(tmp_path: Path, write_case, values: tuple[int, ...]) -> None:
    write_case(tmp_path / "plain", "1-T2")
    write_case(tmp_path / "grey", "1-T2", values=values)
    plain = prepare(tmp_path / "plain", tmp_path / "a", DataConfig())
    grey = prepare(tmp_path / "grey", tmp_path / "b", DataConfig())
    np.testing.assert_array_equal(plain.label("1-T2"), grey.label("1-T2"))
    np.testing.assert_array_equal(plain.read_source("1-T2")[1], grey.read_source("1-T2")[1])
    assert grey.classes.values == values  # what predictions are written with


def test_unlabelled_cases_are_kept_apart(source: Path, tmp_path: Path) -> None:
    (source / "03-T2SPIR-mask.nii.gz").unlink()
    with pytest.raises(InputError, match=r"03-T2SPIR-src\.nii\.gz: has no mask \(1 of 4 images have none"):
        prepare(source, tmp_path / "store", DataConfig())
    store = prepare(source, tmp_path / "store", DataConfig(), allow_unlabelled=True)
    assert [c.name for c in store.cases if not c.labelled] == ["03-T2SPIR"]
    assert not (store.path / "cases/03-T2SPIR/label.npy").exists()
    assert store.image("03-T2SPIR").shape[0] == 6
    assert store.read_source("03-T2SPIR")[1] is None
    assert "03-T2SPIR" not in store.split("all")[0]
    assert store.num_folds == 3
    with pytest.raises(InputError, match="has no labels"):
        store.label("03-T2SPIR")


def test_a_second_run_does_nothing_and_another_store_is_not_overwritten(
    log_lines: list[str], source: Path, tmp_path: Path
) -> None:
    store = prepare(source, tmp_path / "store", DataConfig())
    before = {p: p.stat().st_mtime_ns for p in store.path.rglob("*")}
    assert prepare(source, tmp_path / "store", DataConfig()).manifest == store.manifest
    assert "nothing to do" in log_lines[-1]
    with pytest.raises(InputError, match="exists and was made of other files or settings"):
        prepare(source, tmp_path / "store", DataConfig(size=64))
    image = np.asarray(nib.load(source / "01-T2SPIR-src.nii.gz").dataobj)
    rewrite(source / "01-T2SPIR-src.nii.gz", image + 1)
    with pytest.raises(InputError, match="exists and was made of other files or settings"):
        prepare(source, tmp_path / "store", DataConfig())
    assert {p: p.stat().st_mtime_ns for p in store.path.rglob("*")} == before


@pytest.mark.parametrize("part", ["classes", "channels"])
def test_a_store_is_not_that_of_a_source_that_says_something_else(tmp_path: Path, write_case, part: str) -> None:
    said = {"labels": {"0": "background", "1": "liver", "2": "spleen"}, "modality": {"0": "MRI"}, "test": []}
    described = tmp_path / "source/dataset.json"
    in_folders(write_case, tmp_path / "source", "abcd", (0, 1, 2, 2, 2), "imagesTr", "labelsTr")
    described.write_text(json.dumps(said))
    assert prepare(tmp_path / "source", tmp_path / "store", DataConfig()).classes.names[1] == "liver"
    prepare(tmp_path / "source", tmp_path / "store", DataConfig())
    if part == "classes":
        said["labels"] = {"0": "background", "1": "spleen", "2": "liver"}
    else:
        said["modality"] = {"0": "CT"}
    described.write_text(json.dumps(said))
    with pytest.raises(InputError, match="exists and was made of other files or settings"):
        prepare(tmp_path / "source", tmp_path / "store", DataConfig())


def test_a_users_own_folds_are_taken(source: Path, tmp_path: Path) -> None:
    splits = tmp_path / "mine.json"
    splits.write_text(json.dumps({"schema": 1, "seed": 0, "folds": [["01", "02"], ["03"]], "test": ["04"]}))
    store = prepare(source, tmp_path / "store", DataConfig(), splits_file=splits)
    assert store.split(1) == (["01-T2SPIR", "02-T2SPIR"], ["03-T2SPIR"])
    splits.write_text(json.dumps({"schema": 1, "folds": [["01", "02"], ["03"]], "test": ["05"]}))
    with pytest.raises(InputError, match="'04' is not listed"):
        prepare(source, tmp_path / "other", DataConfig(), splits_file=splits)


def breakages() -> dict[str, object]:
    def shape(source: Path) -> None:
        rewrite(source / "03-T2SPIR-mask.nii.gz", np.zeros((48, 40, 5), np.uint8))

    def unknown(source: Path) -> None:
        rewrite(source / "03-T2SPIR-mask.nii.gz", np.full((48, 40, 6), 9, np.uint8))

    def nan(source: Path) -> None:
        rewrite(source / "03-T2SPIR-src.nii.gz", np.full((48, 40, 6), np.nan, np.float32))

    def truncated(source: Path) -> None:
        path = source / "03-T2SPIR-src.nii.gz"
        os.truncate(path, path.stat().st_size // 2)

    return {
        "mask must have the image's shape": shape,
        "got 9": unknown,
        "must be finite": nan,
        "cannot be read as NIfTI": truncated,
        "has no mask": lambda source: (source / "03-T2SPIR-mask.nii.gz").unlink(),
        "has no image": lambda source: (source / "03-T2SPIR-src.nii.gz").unlink(),
    }


@pytest.mark.parametrize("rule", breakages())
def test_one_bad_file_is_one_line_and_nothing_is_written(source: Path, tmp_path: Path, rule: str) -> None:
    breakages()[rule](source)  # type: ignore[operator]
    before = fingerprint(tmp_path)
    with pytest.raises(InputError, match=rule) as caught:
        prepare(source, tmp_path / "store", DataConfig())
    assert "03-T2SPIR" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert fingerprint(tmp_path) == before
    assert not (tmp_path / "store.partial").exists()


def test_settings_that_do_not_fit_write_nothing(source: Path, tmp_path: Path, write_case) -> None:
    write_case(source, "05-T2SPIR", spacing=(9.0, 9.0, 10.0))
    for arguments, rule in (
        ({"folds": 1}, "folds: must be at least 2"),
        ({"seed": 2**53}, "seed: must be an integer from 0 to"),
        ({"seed": -1}, "seed: must be an integer from 0 to"),
        ({"config": DataConfig(spacing_mm=0.01)}, "at most 16384 pixels"),
        ({"config": DataConfig(spacing_mm=0.05)}, r"^data\.size: must .* to 4096, .* coarser data\.spacing_mm$"),
    ):
        with pytest.raises(InputError, match=rule):
            prepare(source, tmp_path / "store", **{"config": DataConfig(), **arguments})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no such folder"):
        prepare(tmp_path / "absent", tmp_path / "store", DataConfig())
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_a_file_in_the_way_is_one_line(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written: (Not a directory|File exists)"):
        prepare(source, tmp_path / "file/store", DataConfig())


def test_a_link_in_place_of_the_unfinished_store_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store.partial").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"store\.partial: must be a folder, not a link"):
        prepare(source, tmp_path / "store", DataConfig())
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["notes.txt", "cases/anna/ct.nii.gz", "source/anna.nii.gz", ".git/config"])
def test_a_users_folder_in_place_of_the_unfinished_store_is_refused(source: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / "store.partial" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(InputError, match=r"store\.partial: is needed for unfinished work, and holds "):
        prepare(source, tmp_path / "store", DataConfig())
    assert [path for path in tmp_path.glob("store*/**/*") if path.is_file()] == [file]
    assert file.read_text() == "mine"


def test_work_that_ended_before_it_had_its_name_is_taken(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("attunet.preparation.write_store.os.sync", _killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(source, tmp_path / "store", DataConfig())
    with pytest.raises(InputError, match=r"store\.partial: is needed for unfinished work, and holds cases"):
        write_phantom(tmp_path / "store", cases=1, reduce=8)
    log_lines.clear()
    prepare(source, tmp_path / "store", DataConfig())
    assert any("4 of 4 cases are there already" in line for line in log_lines)
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["cases", "manifest.json", "splits.json"]


def _killed() -> None:
    raise KeyboardInterrupt


def test_the_mark_of_a_call_that_was_killed_at_its_end_goes_with_the_next(source: Path, tmp_path: Path) -> None:
    store = prepare(source, tmp_path / "store", DataConfig(), folds=2)
    (store.path / ".unfinished").write_text("prepare")
    prepare(source, tmp_path / "store", DataConfig(), folds=2)
    assert not (store.path / ".unfinished").exists()


def test_a_finished_store_that_is_called_as_unfinished_work_stays(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "store.partial", DataConfig())
    with pytest.raises(InputError, match="holds cases"):
        prepare(source, tmp_path / "store", DataConfig(size=32))
    prepare(source, tmp_path / "store.partial", DataConfig())


def test_a_call_that_has_nothing_to_do_removes_the_lock_of_a_killed_one(
    source: Path, tmp_path: Path, log_lines: list[str]
) -> None:
    prepare(source, tmp_path / "store", DataConfig())
    holder = "import sys, os; from attunet.system.lock import writing; from pathlib import Path\n"
    holder += 'writing(Path(sys.argv[1]), "prepare").__enter__(); os._exit(0)'
    subprocess.run([sys.executable, "-c", holder, tmp_path / "store"], check=True)
    assert (tmp_path / ".store.lock").exists()
    prepare(source, tmp_path / "store", DataConfig())
    assert "nothing to do" in log_lines[-1]
    assert not (tmp_path / ".store.lock").exists()


KILLED = """
import os, signal, sys
from attunet.preparation import write_case as shards
from attunet.config import DataConfig
from attunet.preparation.prepare import prepare

calls, real = 0, shards._save

def save(path, array):
    global calls
    calls += 1
    real(path, array)
    if calls == int(sys.argv[3]):
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

shards._save = save
prepare(sys.argv[1], sys.argv[2], DataConfig())
"""


@pytest.mark.parametrize("kill_at", [1, 4, 8])
def test_a_killed_prepare_leaves_nothing_under_the_name_and_goes_on(
    log_lines: list[str], source: Path, tmp_path: Path, kill_at: int
) -> None:
    expected = fingerprint(prepare(source, tmp_path / "whole/store", DataConfig()).path)
    target = tmp_path / "store"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(source), str(target), str(kill_at)], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not target.exists()
    finished = {p: p.stat().st_mtime_ns for p in (tmp_path / "store.partial").rglob("case.json")}
    assert len(finished) == (kill_at - 1) // 2
    prepare(source, target, DataConfig())
    assert fingerprint(target) == expected
    assert not (tmp_path / "store.partial").exists()
    assert all(
        (target / p.relative_to(tmp_path / "store.partial")).stat().st_mtime_ns == t for p, t in finished.items()
    )
    assert any(f"{len(finished)} of 4 cases are there already" in line for line in log_lines) == bool(finished)


KILLED_LOOKING = """
import os, signal, sys
from attunet.preparation import facts_cache as known_facts
from attunet.config import DataConfig
from attunet.preparation.prepare import prepare

calls, real = 0, known_facts.scan_case

def scan(files, **options):
    global calls
    calls += 1
    if calls == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(files, **options)

known_facts.scan_case = scan
prepare(sys.argv[1], sys.argv[2], DataConfig())
"""


def test_a_prepare_killed_while_it_looks_does_not_look_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fingerprint(prepare(source, tmp_path / "whole/store", DataConfig()).path)
    done = subprocess.run(
        [sys.executable, "-c", KILLED_LOOKING, str(source), str(tmp_path / "store"), "4"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = tmp_path / "store.partial/facts.jsonl"
    kept.write_text(kept.read_text()[:-20])  # the last line did not reach the disk whole
    image = source / "01-T2SPIR-src.nii.gz"
    rewrite(image, np.asarray(nib.load(image).dataobj))  # the same voxels in other bytes
    looked: list[str] = []
    monkeypatch.setattr(
        "attunet.preparation.facts_cache.scan_case",
        lambda files, **options: (looked.append(files.case), scan_case(files, **options))[1],
    )
    store = prepare(source, tmp_path / "store", DataConfig())
    assert looked == ["01-T2SPIR", "03-T2SPIR", "04-T2SPIR"]  # 02 is known
    found = fingerprint(store.path)
    assert {name for name in expected if found.get(name) != expected[name]} == {
        "manifest.json",
        "cases/01-T2SPIR/case.json",
    }
    assert found.keys() == expected.keys()


def test_a_hash_of_a_patients_identifier_is_never_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever tries all identifiers of eight digits finds the one it is of."""
    monkeypatch.setattr(
        "attunet.preparation.facts_cache.scan_case",
        lambda files, **options: replace(scan_case(files, **options), patient_hash=f"hash of {files.case}"),
    )
    scanned = [facts.patient_hash for facts in scan_cases(find_cases(source), tmp_path / "store.partial")]
    assert len(set(scanned)) == 4
    assert "hash of" not in (tmp_path / "store.partial/facts.jsonl").read_text()
    assert scanned == [facts.patient_hash for facts in scan_cases(find_cases(source), tmp_path / "store.partial")]


@pytest.mark.parametrize("name", ["04-T2SPIR-mask.nii.gz", "02-T2SPIR-src.nii.gz"])
def test_a_file_that_changes_between_the_scan_and_the_arrays_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def changed(*args: object, **options: object) -> None:
        rewrite(source / name, np.asarray(nib.load(source / name).dataobj)[::-1])
        build_store(*args, **options)

    monkeypatch.setattr("attunet.preparation.prepare.build_store", changed)
    with pytest.raises(InputError, match=rf"{name}: was changed while its store was made"):
        prepare(source, tmp_path / "store", DataConfig())
    assert not (tmp_path / "store").exists()


def test_facts_of_mask_files_that_stood_for_other_values_are_not_taken(source: Path, tmp_path: Path) -> None:
    found = find_cases(source)
    one, two = (replace(case, label_values=(value,)) for value, case in enumerate(found.cases[:2], 1))
    for cases in ((one, two), (replace(one, label_values=(2,)), replace(two, label_values=(1,)))):
        facts = list(scan_cases(replace(found, cases=cases), tmp_path / "building"))
        assert [set(fact.values) for fact in facts] == [{0, *case.label_values} for case in cases]


def test_a_shard_that_lost_its_end_is_written_again(source: Path, tmp_path: Path) -> None:
    """As after a power cut, when names may reach the disk before contents."""
    expected = fingerprint(prepare(source, tmp_path / "whole/store", DataConfig()).path)
    subprocess.run(
        [sys.executable, "-c", KILLED, str(source), str(tmp_path / "store"), "7"], capture_output=True, check=False
    )
    path = tmp_path / "store.partial/cases/02-T2SPIR/label.npy"
    os.truncate(path, path.stat().st_size - 1)
    assert fingerprint(prepare(source, tmp_path / "store", DataConfig()).path) == expected


def test_a_case_with_a_new_class_goes_on_with_the_classes_of_all(tmp_path: Path, write_case) -> None:
    in_folders(write_case, tmp_path / "source", "abc", (0, 1, 2, 2, 2))
    killed = [sys.executable, "-c", KILLED, str(tmp_path / "source"), str(tmp_path / "store"), "6"]
    subprocess.run(killed, capture_output=True, check=False)
    assert (tmp_path / "store.partial/cases/b/case.json").is_file()
    in_folders(write_case, tmp_path / "source", "d", (0, 1, 2, 3, 3), seed=3)
    store = prepare(tmp_path / "source", tmp_path / "store", DataConfig())
    expected = prepare(tmp_path / "source", tmp_path / "fresh/store", DataConfig())
    assert fingerprint(store.path) == fingerprint(expected.path)


def test_other_settings_do_not_go_on_with_what_a_killed_prepare_left(source: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", KILLED, str(source), str(tmp_path / "store"), "6"], capture_output=True, check=False
    )
    for path in source.glob("01-*"):
        path.unlink()
    config = DataConfig(size=96)
    store = prepare(source, tmp_path / "store", config)
    expected = prepare(source, tmp_path / "fresh/store", config)
    assert fingerprint(store.path) == fingerprint(expected.path)


MANY = """
import sys
from attunet.config import DataConfig
from attunet.preparation.prepare import prepare
if __name__ == "__main__":
    prepare(sys.argv[1], sys.argv[2], DataConfig())
"""


@pytest.mark.slow
def test_processes_give_the_same_store_and_die_with_their_parent(
    tmp_path: Path, write_case, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(MIN_TASKS_FOR_PROCESSES + 4):
        write_case(tmp_path / "source", f"{number:02d}-T2", seed=number, shape=(140, 120, 8))
    script = tmp_path / "many.py"
    script.write_text(MANY)
    target = tmp_path / "store"
    running = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "source"), str(target)], start_new_session=True
    )
    deadline = time.monotonic() + 120
    while (
        not list(tmp_path.glob("store.partial/cases/*/case.json"))
        and running.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    running.kill()
    running.wait()
    assert not target.exists()
    assert list(tmp_path.glob("store.partial/cases/*/case.json"))
    with pytest.raises(ProcessLookupError):  # noqa: PT012
        while time.monotonic() < deadline:
            os.killpg(running.pid, 0)
            time.sleep(0.05)
    prepare(tmp_path / "source", target, DataConfig())
    monkeypatch.setattr("attunet.system.workers.MIN_TASKS_FOR_PROCESSES", 10**6)
    inline = prepare(tmp_path / "source", tmp_path / "inline/store", DataConfig())
    assert fingerprint(target) == fingerprint(inline.path)


def test_the_first_error_in_the_order_of_the_cases_is_reported(tmp_path: Path, write_case) -> None:
    for number in range(MIN_TASKS_FOR_PROCESSES):
        image, _ = write_case(tmp_path, f"{number:02d}-T2")
        if number in (5, 8):
            os.truncate(image, 100)
    with pytest.raises(InputError, match="05-T2-src"):
        list(over_cases(scan_case, find_cases(tmp_path).cases))


def test_hounsfield_units_are_recognised(tmp_path: Path, write_case) -> None:
    image, _ = write_case(tmp_path / "source", "1-CT")
    rewrite(image, np.asarray(nib.load(image).dataobj) - 1024)
    store: Store = prepare(tmp_path / "source", tmp_path / "store", DataConfig())
    assert store.spec.normalization == "ct"
    assert float(store.image("1-CT").min()) == -1
