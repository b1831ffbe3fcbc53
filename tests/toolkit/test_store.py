import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.classes import CHAOS_MR
from attunet.errors import InputError
from attunet.io.readers import files_of
from attunet.manifest import Case
from attunet.privacy.pseudonyms import pseudonyms
from attunet.sources.splits import deal_folds
from attunet.store import Store, content_hash, open_store
from attunet.system.atomic_files import sha256


@pytest.fixture
def copied(small_store: Store, tmp_path: Path) -> Path:
    shutil.copytree(small_store.path, tmp_path / "store")
    return tmp_path / "store"


def test_a_store_opens_with_everything_that_training_needs(small_store: Store) -> None:
    store = open_store(small_store.path)
    assert store.name == "store"
    assert store.classes == CHAOS_MR
    assert [c.name for c in store.cases] == ["01-T2SPIR", "02-T2SPIR", "03-T2SPIR", "04-T2SPIR"]
    case = store.cases[0]
    assert (case.patient, case.labelled, case.num_slices, case.native_shape) == ("01", True, 6, (48, 40, 6))
    assert case.spacing == pytest.approx((2, 2, 8))
    image, label = store.image(case.name), store.label(case.name)
    assert (image.dtype, image.shape) == (np.float16, (6, 1, *store.spec.size))
    assert (label.dtype, label.shape) == (np.uint8, (6, *store.spec.size))
    assert set(np.unique(label)) == {0, 1, 2, 3, 4}
    assert not image.flags.writeable
    assert "auto" not in vars(store.data_config).values()


def test_every_labelled_case_is_left_out_by_one_fold(small_store: Store) -> None:
    everything = {c.name for c in small_store.cases}
    left_out = []
    for fold in range(small_store.num_folds):
        train, held_out = small_store.split(fold)
        assert set(train) | set(held_out) == everything
        assert not set(train) & set(held_out)
        left_out += held_out
    assert sorted(left_out) == sorted(everything)
    assert small_store.split("all") == (sorted(everything), [])
    for fold in (-1, 3, "0", True):
        with pytest.raises(InputError, match="fold: must be 0 to 2 or all"):
            small_store.split(fold)  # type: ignore[arg-type]


DAMAGE = {
    "splits.json": lambda data: data.update(folds=[["01", "02"], ["04"]]),
    "manifest.json": lambda data: data["cases"][2].update(spec_sha256="0" * 64),
}


@pytest.mark.parametrize("file", DAMAGE)
def test_nothing_is_quoted_of_a_store_whose_names_are_not_known_yet(copied: Path, tmp_path: Path, file: str) -> None:
    data = json.loads((copied / file).read_text())
    DAMAGE[file](data)
    (copied / file).write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"T2SPIR|'03'"):
        open_store(copied)
    with pseudonyms(tmp_path / "key.csv", []) as names, pytest.raises(InputError) as error:
        open_store(copied, names)
    assert str(error.value) == f"{copied}: cannot be opened; `attunet inspect` on it says why, with its names"


def test_numbers_hide_what_files_of_a_store_of_names_hold(copied: Path, source: Path, tmp_path: Path) -> None:
    path = source / "01-T2SPIR-src.nii.gz"
    header = nib.load(path).header
    path.write_bytes(header.binaryblock[:200])  # of which an error quotes sizes; others quote names in headers
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["cases"][0]["image_files"][0]["sha256"] = sha256(path)
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pseudonyms(tmp_path / "key.csv", []) as names:
        store = open_store(copied, names, source=source)
        with pytest.raises(InputError, match=r"its files cannot be read; `attunet inspect` on them says why$"):
            store.read_source(store.numbers["01-T2SPIR"])


def test_folds_do_not_move_when_patients_join() -> None:
    patients = [f"{n:02d}" for n in range(30)]
    before = deal_folds(patients, 5, seed=0)
    assert before == deal_folds(reversed(patients), 5, seed=0)
    assert before != deal_folds(patients, 5, seed=1)
    assert {len(f) for f in before.folds} == {6}
    shared = deal_folds(patients, 5, seed=0, together=[patients[:3], patients[2:5]])
    assert any(set(patients[:5]) <= set(fold) for fold in shared.folds)
    assert sorted(patient for fold in shared.folds for patient in fold) == sorted(patients)
    assert [p for f in deal_folds(["a", "b"], 5, seed=0).folds for p in f] in (["a", "b"], ["b", "a"])


def test_folds_are_a_function_of_seed_and_patients_alone() -> None:
    patients, groups = (
        [f"p{i}" for i in range(12)],
        [("p3", "p1", "p7"), ("p7", "p2"), ("p9", "p4"), ("p5", "elsewhere")],
    )
    rng = np.random.default_rng(0)
    first = deal_folds(patients, 4, 1, groups)
    (joined,) = (fold for fold in first.folds if "p3" in fold)
    assert {"p1", "p2", "p3", "p7"} <= set(joined)
    for _ in range(20):
        shuffled = [tuple(rng.permutation(group).tolist()) for group in groups]
        order = rng.permutation(len(groups))
        assert deal_folds(rng.permutation(patients).tolist(), 4, 1, [shuffled[i] for i in order]) == first


def test_patients_that_share_scans_with_the_test_set_are_in_it() -> None:
    patients = [f"p{i}" for i in range(8)]
    splits = deal_folds(patients, 3, 0, together=[("p1", "p6"), ("p4", "p1"), ("p2", "p3")], test=["p6", "p7"])
    assert splits.test == ("p1", "p4", "p6", "p7")
    assert sorted(patient for fold in splits.folds for patient in fold) == ["p0", "p2", "p3", "p5"]


def test_test_patients_are_in_no_training_and_left_out_by_all(copied: Path) -> None:
    (copied / "splits.json").write_text(
        json.dumps({"schema": 1, "seed": 0, "folds": [["01"], ["02", "03"]], "test": ["04"]})
    )
    store = open_store(copied)
    assert store.split(0) == (["02-T2SPIR", "03-T2SPIR"], ["01-T2SPIR"])
    assert store.split("all") == (["01-T2SPIR", "02-T2SPIR", "03-T2SPIR"], ["04-T2SPIR"])


@pytest.mark.parametrize(
    ("splits", "rule"),
    [
        ({"folds": []}, r"schema: the field is missing; write it as \{.schema.: 1, .folds.: "),
        ({"schema": 1, "folds": [["01"], ["01", "02", "03", "04"]]}, "'01' is listed twice: remove one"),
        ({"schema": 1, "folds": [["01"], ["02", "03"]]}, "'04' is not listed: add it"),
        (
            {"schema": 1, "folds": [["01", "02"], ["03", "04", "05"]]},
            "'05' is not a labelled patient of the source: remove it",
        ),
        ({"schema": 1, "folds": [["01"], []]}, "must be lists of patients, none empty, got .*; write it as"),
    ],
)
def test_splits_that_do_not_fit_are_one_line(copied: Path, splits: dict, rule: str) -> None:
    (copied / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(InputError, match=rule):
        open_store(copied)


def test_the_users_own_files_come_back_as_they_were(small_store: Store, tmp_path: Path) -> None:
    volume, labels = small_store.read_source("02-T2SPIR")
    assert volume.data.shape == (1, 48, 40, 6)
    assert labels is not None
    assert labels.shape == volume.shape
    moved = tmp_path / "moved"
    shutil.copytree(small_store.source_root, moved)
    elsewhere = open_store(small_store.path, source=moved)
    np.testing.assert_array_equal(elsewhere.read_source("02-T2SPIR")[1], labels)
    shutil.copy(moved / "03-T2SPIR-src.nii.gz", moved / "02-T2SPIR-src.nii.gz")
    with pytest.raises(InputError, match=r"02-T2SPIR-src\.nii\.gz: is not the file that .* was made of"):
        elsewhere.read_source("02-T2SPIR")
    (moved / "02-T2SPIR-src.nii.gz").unlink()
    with pytest.raises(InputError, match="no such file; where the source has moved"):
        elsewhere.read_source("02-T2SPIR")


@pytest.mark.parametrize("ending", [".mhd", ".hdr"])
def test_voxels_beside_a_header_belong_to_its_hash(tmp_path: Path, ending: str) -> None:
    """Two scans of one geometry have equal headers, and a change of the voxels is a change of the scan."""
    scans, digests = [], []
    for number in range(2):
        scan = tmp_path / str(number) / f"scan{ending}"
        scan.parent.mkdir()
        voxels = np.full((4, 3, 2), number, np.uint8)
        if ending == ".hdr":
            nib.Nifti1Pair(voxels, np.eye(4)).to_filename(scan)
        else:
            about = ("ObjectType = Image", "NDims = 3", "DimSize = 4 3 2", "ElementType = MET_UCHAR")
            scan.write_text("\n".join((*about, "ElementDataFile = v.raw")))
            voxels.tofile(scan.with_name("v.raw"))
        scans.append(scan)
        digests.append(content_hash(scan))
    assert sha256(scans[0]) == sha256(scans[1])
    assert digests[0] != digests[1]
    assert content_hash(scans[0]) == digests[0]
    assert [files_of(scan)[0] for scan in scans] == scans
    assert all(len(files_of(scan)) == 2 for scan in scans)


class Counted(tuple[Case, ...]):
    """The cases of a store, which count how many of them were looked at."""

    looked_at = 0

    def __iter__(self) -> Iterator[Case]:
        for case in super().__iter__():
            Counted.looked_at += 1
            yield case


def test_reading_every_case_looks_at_cases_and_files_in_proportion_to_their_number(
    small_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search through all cases for each of them made it quadratic once."""
    hashed: list[Path] = []
    monkeypatch.setattr("attunet.store.content_hash", lambda path: hashed.append(path) or content_hash(path))
    copies = [replace(case, name=f"{case.name}-{copy}") for copy in range(5) for case in small_store.cases]
    store = replace(small_store, cases=Counted(copies))
    Counted.looked_at = 0
    for case in copies:
        store.read_source(case.name)
    assert Counted.looked_at <= len(copies)
    assert len(hashed) == sum(len(case.source_sha256) for case in copies)


def test_what_is_no_store_or_another_version_is_one_line(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: is no store"):
        open_store(tmp_path / "absent")
    with pytest.raises(InputError, match="is no store"):
        open_store(tmp_path)
    manifest = json.loads((copied / "manifest.json").read_text())
    for change, rule in (
        ({"schema": 1}, "the store's version must be 4, got 1; prepare it again"),
        ({"cases": [{**manifest["cases"][0], "case": "../../etc"}]}, "must be a plain file name"),
        ({"cases": None}, "cases: must be a list, got None"),
        (
            {"cases": [{**manifest["cases"][0], "native_shape": [1, "2", 3]}]},
            r"cases\[0\]\.native_shape: must be an integer",
        ),
        ({"cases": [{**manifest["cases"][0], "label_mapping": {"x": 1}}]}, "must map label values to class indices"),
        (
            {"preprocessing": {"spec": {"size": [1, 2]}, "postprocessing": {}}},
            r"preprocessing\.spec\.orientation: the field is missing",
        ),
    ):
        (copied / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(InputError, match=rule):
            open_store(copied)
    (copied / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        open_store(copied)


def test_a_damaged_array_is_one_line_and_never_unpickled(copied: Path) -> None:
    store, path = open_store(copied), copied / "cases/01-T2SPIR/image.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"image\.npy: cannot be read"):
        store.image("01-T2SPIR")
    np.save(path, np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(InputError, match=r"image\.npy: cannot be read"):
        store.image("01-T2SPIR")
    np.save(path, np.zeros((6, 1, 3, 3), np.float16))
    with pytest.raises(InputError, match="must be float16 of shape"):
        store.image("01-T2SPIR")
    with pytest.raises(InputError, match="has no case 'x'"):
        store.image("x")


@pytest.mark.parametrize("shape", ["-" * 9000 + "1", "1" + "+1" * 4000, "(" * 4500 + ")" * 4500, "(-1,)"])
def test_the_header_of_an_array_cannot_break_its_parser(copied: Path, shape: str) -> None:
    header = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}}}".encode()
    path = copied / "cases/01-T2SPIR/image.npy"
    path.write_bytes(b"\x93NUMPY\x02\0" + len(header).to_bytes(4, "little") + header + bytes(100_000))
    with pytest.raises(InputError, match=r"image\.npy: cannot be read as an array of the store: .") as refusal:
        open_store(copied).image("01-T2SPIR")
    assert "\n" not in str(refusal.value)


def test_arrays_that_were_prepared_in_another_way_are_noticed(small_store: Store, tmp_path: Path) -> None:
    copied = tmp_path / "store"
    shutil.copytree(small_store.path, copied)
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["preprocessing"]["spec"]["spacing_mm"] += 1
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="01-T2SPIR were prepared with other settings; prepare the store again"):
        open_store(copied)


STRANGE_CASES: list[tuple[dict[str, object], str]] = [
    ({"case": "\ud800"}, r"cases\[0\]\.case: must be a plain file name"),
    ({"image_files": []}, r"cases\[0\]\.image_files: must have at least one file"),
    ({"image_files": [{"file": "/etc/passwd", "sha256": "0"}]}, "must be a path inside the source, got '/etc/passwd'"),
    ({"label_files": [{"file": "a/../../b", "sha256": "0"}]}, "must be a path inside the source, got 'a/../../b'"),
    ({"image_files": [{"file": "a\0b", "sha256": "0"}]}, "must be a path inside the source"),
    ({"affine": [[0, 0, 0, 0]] * 4}, r"affine: its last row must be \[0, 0, 0, 1\]"),
    ({"affine": [*[[0, 0, 0, 0]] * 3, [0, 0, 0, 1]]}, r"cases\[0\]\.affine: the affine must be finite with voxels of"),
    ({"affine": [*[[1, 1, 1, 0]] * 3, [0, 0, 0, 1]]}, r"cases\[0\]\.affine: the affine must be invertible"),
    ({"affine": [[1e-9, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "must be finite with voxels of"),
    ({"native_shape": [2**31, 2**31, 2**31]}, r"native_shape: must be an integer .* to 1\.07374e\+09"),
    ({"native_shape": [2**20, 2**20, 1]}, "native_shape: must be at most 1,073,741,824 voxels"),
    ({"num_slices": 0}, "num_slices: must be an integer"),
    ({"drawn": ["tumour"]}, "drawn: must be of liver, .*, got 'tumour'"),
    ({"drawn": [{}]}, "drawn: must be of liver, .*, got an object of 0"),
    ({"label_mapping": {"63": 5}}, "label_mapping: must map to 5 classes or to 255, got 5"),
    ({"arrays_sha256": {"image.npy": "0"}}, "arrays_sha256: must be of image.npy and label.npy, got 'image.npy'"),
    ({"arrays_sha256": {"image.npy": "0", "../label.npy": "0"}}, "arrays_sha256: must be of image.npy and label.npy"),
    ({"arrays_sha256": {"image.npy": 1, "label.npy": 2}}, "arrays_sha256: must be an object of texts"),
]


@pytest.mark.parametrize(("change", "rule"), STRANGE_CASES, ids=range(len(STRANGE_CASES)))
def test_a_case_of_a_strangers_manifest_is_refused_by_its_field(
    copied: Path, change: dict[str, object], rule: str
) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["cases"][0].update(change)
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=rule) as refusal:
        open_store(copied)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"choices": []}, "choices: must be an object of texts"),
        ({"data": None}, "data: must be an object"),
        ({"splits": [1]}, "splits: must be a list of 2 numbers"),
        ({"classes": [1]}, "classes: must be a list of 2"),
        ({"classes": [[{"name": 1}], None]}, r"classes\[0\]\.name: must be a text"),
        ({"images": 1}, "images: must be a list of texts"),
        (None, "request: must be an object"),
    ],
)
def test_what_a_report_needs_of_the_preparation_is_checked_before_the_work(
    copied: Path, change: dict[str, object] | None, rule: str
) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["request"] = None if change is None else manifest["request"] | change
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=f"manifest\\.json: (request\\.)?{rule}"):
        open_store(copied)


def test_a_case_is_there_once(copied: Path) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["cases"] += manifest["cases"][:1] * 2
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"cases\[4\]\.case: must be of one case alone, '01-T2SPIR' is there twice"):
        open_store(copied)
