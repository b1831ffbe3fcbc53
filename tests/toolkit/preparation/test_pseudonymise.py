"""A store whose cases have numbers: nothing in it or in the log has a name, and its source is found by content."""

import csv
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attunet.benchmarks.evaluation.commands import preparing_command
from attunet.config import DataConfig
from attunet.errors import InputError, RunError
from attunet.launch.commands.inspect import describe
from attunet.preparation.prepare import prepare
from attunet.preparation.write_store import build_store
from attunet.privacy.pseudonyms import pseudonyms
from attunet.sources.case_files import DEFAULTS, SourceOptions
from attunet.store import Store, open_store

WARD = "Ward-Hopkins"
NAMES = ("SMITHERS-Jane", "MILLERTON-Paul", "BAXTER-Mary", "QUINCY-Tom")
PARTS = tuple(part for name in NAMES for part in name.split("-"))


@pytest.fixture
def scans(tmp_path: Path, write_case: Callable[..., object]) -> Path:
    for number, name in enumerate(NAMES, 1):
        write_case(tmp_path / WARD, name, seed=number)
    return tmp_path / WARD


def names_in(folder: Path) -> list[str]:
    """Files below a folder that have a name in their path or in their bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    held = [(path, str(path.relative_to(folder)).encode() + path.read_bytes()) for path in files]
    return [f"{path} holds {word}" for path, data in held for word in (*PARTS, WARD) if word.encode() in data]


def table(key: Path) -> dict[str, str]:
    with key.open(newline="") as file:
        return {row["name"]: row["number"] for row in csv.DictReader(file)}


def test_no_name_is_written_or_logged(scans: Path, tmp_path: Path, log_lines: list[str]) -> None:
    key = tmp_path / "key.csv"
    store = prepare(scans, tmp_path / "out" / "store", DataConfig(), folds=2, pseudonymise=key)
    assert set(table(key)) == set(NAMES)
    assert [case.name for case in store.cases] == sorted(table(key).values()) == ["0001", "0002", "0003", "0004"]
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    lines = [*log_lines, *describe(store.path, DEFAULTS)]
    assert len(log_lines) > 2
    assert names_in(tmp_path / "out") == []
    assert not [line for line in lines if any(part in line for part in PARTS)]


def test_nothing_of_a_killed_call_with_names_stays(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = shutil.make_archive(str(tmp_path / "scans"), "zip", scans)
    building, here = tmp_path / "out/store.partial", "attunet.preparation.prepare.build_store"

    def killed(*_: object, **__: object) -> None:
        assert names_in(building)  # those of the archive, and of the facts
        raise KeyboardInterrupt

    monkeypatch.setattr(here, killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(archive, tmp_path / "out/store", DataConfig(), folds=2)
    (building / ".7-0abc.partial.manifest.json").write_text(NAMES[0])
    (building / ".left").mkdir()

    def without_facts(*arguments: object, **options: object) -> None:
        assert not [file for file in names_in(building) if "facts" in file]
        build_store(*arguments, **options)

    monkeypatch.setattr(here, without_facts)
    store = prepare(scans, tmp_path / "out/store", DataConfig(), folds=2, pseudonymise=tmp_path / "key.csv")
    assert names_in(tmp_path / "out") == []
    assert sorted(path.name for path in store.path.iterdir()) == ["cases", "manifest.json", "splits.json"]


def test_the_source_is_found_by_content(scans: Path, tmp_path: Path) -> None:
    plain = prepare(scans, tmp_path / "plain", DataConfig(), folds=2)
    store = prepare(scans, tmp_path / "store", DataConfig(), folds=2, pseudonymise=tmp_path / "key.csv")
    with pytest.raises(InputError, match="--source"):
        store.read_source("0001")
    there = open_store(store.path, source=scans)
    for name, number in table(tmp_path / "key.csv").items():
        for ours, theirs in zip(there.read_source(number), plain.read_source(name), strict=True):
            np.testing.assert_array_equal(getattr(ours, "data", ours), getattr(theirs, "data", theirs))
        np.testing.assert_array_equal(store.image(number), plain.image(name))


def test_an_annotated_picture_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Its file's name, which the store does not have, tells which annotations are its own."""
    pictures = np.random.default_rng(0).integers(0, 255, (4, 32, 32), dtype=np.uint8)
    pictures[3] = pictures[2]
    (tmp_path / "source").mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "source" / f"{NAMES[number]}.png")
    corners = [[4 + 3 * n, 5, 12 + 3 * n, 5, 12 + 3 * n, 15, 4 + 3 * n, 15] for n in range(4)]
    coco = {
        "images": [{"id": n, "file_name": f"{NAMES[n]}.png"} for n in range(4)],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "segmentation": [corners[n]]} for n in range(4)],
        "categories": [{"id": 1, "name": "cell"}],
    }
    (tmp_path / "source" / "annotations.json").write_text(json.dumps(coco))
    prepare(tmp_path / "source", tmp_path / "store", DataConfig(), folds=2, pseudonymise=tmp_path / "key.csv")
    store, numbers = open_store(tmp_path / "store", source=tmp_path / "source"), table(tmp_path / "key.csv")
    for number, name in enumerate(NAMES[:2]):
        _, labels = store.read_source(numbers[name])
        assert np.argwhere(labels[:, :, 0])[0].tolist() == [4 + 3 * number, 5]
    for name in NAMES[2:]:
        with pytest.raises(InputError, match=r"image-1\.png: 2 files below .* so the case's own is unknown"):
            store.read_source(numbers[name])


def test_channels_that_are_called_as_files_have_no_names(tmp_path: Path, write_case, log_lines: list[str]) -> None:
    for visit in ("m0", "m1"):
        folder = tmp_path / "scans" / visit
        write_case(folder, "Qzwick", seed=1)
        (folder / "Qzwick-src.nii.gz").rename(folder / "Qzwick T1.nii.gz")
        (folder / "Qzwick-mask.nii.gz").rename(folder / "Qzwick seg.nii.gz")
        shutil.copy(folder / "Qzwick T1.nii.gz", folder / "Qzwick T2.nii.gz")
    store = prepare(tmp_path / "scans", tmp_path / "store", DataConfig(), folds=2, pseudonymise=tmp_path / "key.csv")
    assert store.channels == ()
    assert not [line for line in log_lines if "Qzwick" in line]
    assert "Qzwick" not in (tmp_path / "store" / "manifest.json").read_text()


def test_no_line_about_files_has_a_name(tmp_path: Path, write_case, log_lines: list[str]) -> None:
    """Links, folders that are left out, cases of dataset.json without files, and what the user typed."""
    scans = tmp_path / "scans"
    for number, name in enumerate(("Qzwicky", "Qzmueller"), 1):
        image, mask = write_case(tmp_path / "made", name, seed=number)
        for folder, file in (("imagesTr", image), ("labelsTr", mask), ("manual Qzdoctor", mask)):
            (scans / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, scans / folder / f"{name}.nii.gz")
    (scans / "imagesTr" / "Qzlink.nii.gz").symlink_to("/nonexistent")
    (scans / "Qzfolder").symlink_to("/etc")
    training = [f"./labelsTr/{name}.nii.gz" for name in ("Qzwicky", "Qzmueller", "Qzgone")]
    labels = {"background": 0, "liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}
    (scans / "dataset.json").write_text(json.dumps({"labels": labels, "training": training}))
    options = SourceOptions(case_pattern="^(Qzwicky|Qzmueller)")
    again = {"options": options, "folds": 2, "pseudonymise": tmp_path / "key.csv"}
    prepare(scans, tmp_path / "store", DataConfig(), **again)
    assert any("line(s) about its files: not shown" in line for line in log_lines)
    assert not [line for line in log_lines if "Qz" in line]
    assert "Qz" not in (tmp_path / "store" / "manifest.json").read_text()
    prepare(scans, tmp_path / "store", DataConfig(), **again)  # the same choices: the store is taken
    with pytest.raises(InputError):
        prepare(scans, tmp_path / "store", DataConfig(), folds=2, pseudonymise=tmp_path / "key.csv")


def test_a_second_source_gets_further_numbers_and_a_rerun_the_same(
    scans: Path, tmp_path: Path, write_case: Callable[..., object]
) -> None:
    key = tmp_path / "key.csv"
    prepare(scans, tmp_path / "store", DataConfig(), folds=2, pseudonymise=key)
    before = table(key)
    write_case(scans, "ZELLER", seed=9)
    other = prepare(scans, tmp_path / "other", DataConfig(), folds=2, pseudonymise=key)
    assert table(key) == before | {"ZELLER": "0005"}
    assert len(other.cases) == 5
    (scans / "ZELLER-src.nii.gz").unlink()
    (scans / "ZELLER-mask.nii.gz").unlink()
    assert (
        prepare(scans, tmp_path / "store", DataConfig(), folds=2, pseudonymise=key).sha256
        == open_store(tmp_path / "store").sha256
    )


@pytest.mark.parametrize("place", ["store/key.csv", "store.partial/key.csv", "store", "link/key.csv"])
def test_a_table_inside_the_store_is_refused(place: str, scans: Path, tmp_path: Path) -> None:
    os.symlink(tmp_path / "store", tmp_path / "link")
    with pytest.raises(InputError, match="outside"):
        prepare(scans, tmp_path / "store", DataConfig(), folds=2, pseudonymise=tmp_path / place)
    assert not (tmp_path / "store").exists()


def test_errors_have_numbers_too(scans: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.csv"
    broken = scans / f"{NAMES[1]}-src.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-200])
    with pytest.raises(InputError) as error:
        prepare(scans, tmp_path / "store", DataConfig(), folds=2, pseudonymise=key)
    assert str(error.value).startswith(table(key)[NAMES[1]])
    assert not [part for part in PARTS if part in str(error.value)]
    (scans / f"{NAMES[2]}-mask.nii.gz").unlink()
    with pytest.raises(InputError) as error:
        prepare(scans, tmp_path / "store", DataConfig(), folds=2, pseudonymise=key)
    assert not [part for part in PARTS if part in str(error.value)]


def test_own_splits_and_drawn_classes_name_the_cases_as_the_files_do(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "splits.json").write_text(json.dumps({"schema": 1, "folds": [NAMES[:2], NAMES[2:]]}))
    (tmp_path / "drawn.json").write_text(json.dumps({NAMES[0]: ["liver", "right kidney", "left kidney", "spleen"]}))
    store = prepare(
        scans,
        tmp_path / "out" / "store",
        DataConfig(),
        splits_file=tmp_path / "splits.json",
        labelled_file=tmp_path / "drawn.json",
        pseudonymise=tmp_path / "key.csv",
    )
    numbers = table(tmp_path / "key.csv")
    assert store.splits.folds == ((numbers[NAMES[0]], numbers[NAMES[1]]), (numbers[NAMES[2]], numbers[NAMES[3]]))
    assert store.case(numbers[NAMES[0]]).drawn is not None
    assert names_in(tmp_path / "out") == []


def test_of_options_with_names_it_is_kept_that_they_were_given(scans: Path, tmp_path: Path) -> None:
    """A hash of them could be found by guessing."""

    def prepared(pattern: str) -> Store:
        options = SourceOptions(case_pattern=pattern)
        key = tmp_path / "key.csv"
        return prepare(scans, tmp_path / "store", DataConfig(), options=options, folds=2, pseudonymise=key)

    store = prepared("^(SMITHERS|MILLERTON|BAXTER|QUINCY)")
    request = store.manifest["request"]
    assert isinstance(request, dict)
    assert (request["case_pattern"], request["images"], request["masks"]) == ("hidden", [], [])
    assert "--case-pattern PATTERN --" in (line := preparing_command(store))
    assert "--images" not in line
    assert line.endswith("--pseudonymise KEY.csv")
    manifest = store.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"hidden"', '"0123456789abcdef"'))  # as older versions wrote it
    prepared("^(SMITHERS|MILLERTON|BAXTER|QUINCY)")
    with pytest.raises(InputError, match="was made of other files or settings"):
        prepared("^(.)")


def test_nothing_is_quoted_of_lists_and_folders_whose_names_are_not_known_yet(scans: Path, tmp_path: Path) -> None:
    """A patient of a list who is not in the source; two letters, which no line marks as a name."""
    for path in scans.glob(f"{NAMES[3]}-*"):
        path.rename(path.with_name(path.name.replace(NAMES[3], "Xq")))
    drawn, splits = tmp_path / "drawn.json", tmp_path / "splits.json"
    drawn.write_text(json.dumps({"GONE": ["liver"]}))
    splits.write_text(json.dumps({"schema": 1, "folds": [[NAMES[0], "GONE"], [NAMES[1], "GONE"]]}))
    for lists in ({"labelled_file": drawn}, {"splits_file": splits}):
        with pytest.raises(InputError, match="the same call without --pseudonymise says why") as error:
            prepare(scans, tmp_path / "store", DataConfig(), **lists, pseudonymise=tmp_path / "key.csv")
        assert not [part for part in (*PARTS, "Xq", "GONE") if part in str(error.value)]
    options = SourceOptions(choices={"dicom-series": "SMITHERS-Jane"})
    with pytest.raises(InputError, match="--series: is kept in the store"):
        prepare(scans, tmp_path / "store", DataConfig(), options=options, pseudonymise=tmp_path / "key.csv")
    assert not (tmp_path / "store").exists()


def test_a_folder_that_cannot_be_listed_is_not_named(scans: Path, tmp_path: Path, monkeypatch) -> None:
    store = prepare(scans, tmp_path / "store", DataConfig(), folds=2, pseudonymise=tmp_path / "key.csv")

    def walk(root: Path, onerror: Callable[[OSError], None]) -> Iterator[object]:
        onerror(PermissionError(13, "Permission denied", f"{root}/BAXTER-Mary"))
        yield

    monkeypatch.setattr("attunet.sources.case_files.os.walk", walk)
    with pytest.raises(InputError, match="its files cannot be taken as cases; `attunet inspect` on it says why"):
        prepare(scans, tmp_path / "other", DataConfig(), folds=2, pseudonymise=tmp_path / "key.csv")
    with pytest.raises(InputError, match="its folders cannot be listed; `attunet inspect` on it says why"):
        open_store(store.path, source=scans).read_source("0001")


def test_a_file_that_changes_after_another_was_found_is_not_read(scans: Path, tmp_path: Path) -> None:
    store = prepare(scans, tmp_path / "store", DataConfig(), folds=2, pseudonymise=tmp_path / "key.csv")
    opened = open_store(store.path, source=scans)
    for case in store.cases:
        opened.read_source(case.name)
    masks = [scans / f"{name}-mask.nii.gz" for name in NAMES[:2]]
    contents = [mask.read_bytes() for mask in masks]
    masks[0].write_bytes(contents[1])
    with pytest.raises(InputError, match=r"no file below .* has its SHA-256"):
        opened.read_source(table(tmp_path / "key.csv")[NAMES[0]])
    masks[0].rename(scans / "again.nii.gz")
    masks[0].write_bytes(contents[0])
    opened.read_source(table(tmp_path / "key.csv")[NAMES[0]])


@pytest.mark.parametrize("error", [MemoryError(), FileNotFoundError(2, "No such file or directory", WARD)])
def test_a_scan_that_is_too_large_or_goes_is_not_named(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    store = prepare(scans, tmp_path / "store", DataConfig(), folds=2, pseudonymise=tmp_path / "key.csv")
    monkeypatch.setattr("attunet.io.readers.format_of", fail)
    opened = open_store(store.path, source=scans)
    with pytest.raises((InputError, RunError), match=f"^{store.path}: 0001: ") as raised:
        opened.read_source("0001")
    assert not [part for part in (*PARTS, WARD) if part in str(raised.value).removeprefix(str(store.path))]


@pytest.mark.parametrize("name", ["MILLERTON-Paul", "Xq"])
def test_the_name_of_a_case_is_no_series_where_it_is_short_or_that_of_a_folder(
    scans: Path, tmp_path: Path, name: str
) -> None:
    for case, folder in zip(NAMES, (name, "4711", "12", "13"), strict=True):
        (scans / folder).mkdir()
        (scans / f"{case}-src.nii.gz").rename(scans / folder / "imaging.nii.gz")
        (scans / f"{case}-mask.nii.gz").rename(scans / folder / "segmentation.nii.gz")

    def prepared(series: str) -> None:
        options = SourceOptions(choices={"dicom-series": series})
        prepare(scans, tmp_path / "store", DataConfig(), options=options, folds=2, pseudonymise=tmp_path / "key.csv")

    for text in (name, f"axial '{name}'"):
        with pytest.raises(InputError, match="--series: is kept in the store"):
            prepared(text)
    prepared("12")


def test_an_archive_is_refused(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "scans.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(InputError, match="unpack"):
        prepare(tmp_path / "scans.zip", tmp_path / "store", DataConfig(), pseudonymise=tmp_path / "key.csv")


def test_a_store_with_names_hides_channels_that_are_called_as_files(tmp_path: Path, write_case) -> None:
    for case in ("m0", "m1"):
        image, mask = write_case(tmp_path / "made", case, seed=1)
        (tmp_path / "scans" / case).mkdir(parents=True)
        for path, name in ((image, "t1"), (image, "t2"), (mask, "seg")):
            shutil.copy(path, tmp_path / "scans" / case / f"{name}.nii.gz")
    store = prepare(tmp_path / "scans", tmp_path / "store", DataConfig(), folds=2)
    assert store.channels == ("t1", "t2")
    with pseudonyms(tmp_path / "key.csv", [tmp_path / "out"]) as names:
        assert open_store(store.path, names).channels == ()
