"""Whole sources of every kind through `prepare`: what comes out is what went in."""

import hashlib
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from attunet.classes import Classes
from attunet.config import DataConfig
from attunet.errors import InputError
from attunet.io.archives import extract
from attunet.io.readers import read_mask, read_volume
from attunet.io.writers import write_labels
from attunet.preparation.prepare import prepare
from attunet.sources.case_files import content_hash, find_by_hash
from attunet.sources.find_cases import find_cases
from attunet.sources.layouts.numbers import pair_by_number
from attunet.store import Store
from attunet.volumes.slices import VolumeSlices

RNG = np.random.default_rng(0)
GRID = np.diag([-1, -1, 1.2, 1])


def same_arrays(a: Store, b: Store) -> None:
    assert [c.name for c in a.cases] == [c.name for c in b.cases]
    assert (a.spec, a.split(0)) == (b.spec, b.split(0))
    for case in a.cases:
        np.testing.assert_array_equal(a.image(case.name), b.image(case.name))
        np.testing.assert_array_equal(a.label(case.name), b.label(case.name))


def archive_of(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            opened.write(file, file.relative_to(folder))
    return path


def official_tree(nifti: Path, tree: Path, write_chaos_case) -> None:
    for path in sorted(nifti.glob("*-src.nii.gz")):
        labels = read_mask(path.with_name(path.name.replace("src", "mask"))).data[0]
        volume = read_volume(path)
        write_chaos_case(tree, int(path.name[:2]), volume.data[0], labels, volume.affine)


def test_the_official_archive_gives_the_store_that_its_nifti_gives(
    log_lines: list[str], source: Path, tmp_path: Path, write_chaos_case, write_series
) -> None:
    official_tree(source, tmp_path / "tree", write_chaos_case)
    write_series(tmp_path / "tree/Train_Sets/CT/1/DICOM_anon", np.zeros((4, 4, 2), np.int16), np.eye(4))
    path = archive_of(tmp_path / "tree", tmp_path / "CHAOS_Train_Sets.zip")
    store = prepare(path, tmp_path / "store", DataConfig(), folds=3)
    expected = prepare(source, tmp_path / "expected", DataConfig(), folds=3)
    same_arrays(store, expected)
    assert store.classes == Classes(expected.classes.names, (0, 63, 126, 189, 252))
    np.testing.assert_array_equal(
        store.label("01-T2SPIR"), prepare(tmp_path / "tree", tmp_path / "c", DataConfig()).label("01-T2SPIR")
    )
    assert any("is not that of the published CHAOS_Train_Sets.zip" in line for line in log_lines)
    assert any("without the CT series" in line for line in log_lines)
    volume, labels = store.read_source("02-T2SPIR")
    assert labels is not None
    assert volume.shape == labels.shape
    assert (
        np.bincount(labels.ravel()).tolist()
        == np.bincount(np.asarray(expected.read_source("02-T2SPIR")[1]).ravel()).tolist()
    )
    path.rename(tmp_path / "gone.zip")
    assert store.read_source("02-T2SPIR")[0].shape == volume.shape  # the store holds what it was made of
    (tmp_path / "gone.zip").rename(path)
    prepare(path, tmp_path / "store", DataConfig(), folds=3)
    assert log_lines[-1].endswith("is up to date, nothing to do")


def test_a_bad_archive_leaves_nothing(source: Path, tmp_path: Path) -> None:
    (source / "01-T2SPIR-mask.nii.gz").unlink()
    path = archive_of(source, tmp_path / "a.zip")
    with pytest.raises(InputError, match="has no mask"):
        prepare(path, tmp_path / "store", DataConfig())
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="cannot be read as an archive"):
        prepare(path, tmp_path / "store", DataConfig())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "source"]


def test_an_archive_that_changes_while_it_is_unpacked_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive_of(source, tmp_path / "a.zip")

    def changed(archive: Path, *rest: object) -> int:
        archive.write_bytes(archive.read_bytes() + b" ")
        return extract(archive, *rest)

    monkeypatch.setattr("attunet.sources.unpack.extract", changed)
    with pytest.raises(InputError, match=r"a\.zip: was changed while it was unpacked"):
        prepare(path, tmp_path / "store", DataConfig())
    assert not (tmp_path / "store").exists()


def test_both_phases_of_t1_are_cases_of_one_patient(
    source: Path, tmp_path: Path, write_chaos_case, write_series
) -> None:
    official_tree(source, tmp_path / "tree", write_chaos_case)
    case = tmp_path / "tree/Train_Sets/MR/1/T1DUAL"
    data, labels = read_volume(source / "01-T2SPIR-src.nii.gz"), read_mask(source / "01-T2SPIR-mask.nii.gz").data[0]
    write_chaos_case(tmp_path / "tree", 1, data.data[0], labels, data.affine, "T1DUAL")
    (case / "DICOM_anon").rename(case / "InPhase")
    (case / "InPhase").rename((case / "DICOM_anon").with_name("x"))
    (case / "DICOM_anon").mkdir()
    (case / "x").rename(case / "DICOM_anon/InPhase")
    write_series(case / "DICOM_anon/OutPhase", data.data[0] // 2, data.affine)
    store = prepare(tmp_path / "tree", tmp_path / "store", DataConfig(), folds=4)
    assert [(c.name, c.patient) for c in store.cases[:3]] == [
        ("01-T1DUAL-InPhase", "01"),
        ("01-T1DUAL-OutPhase", "01"),
        ("01-T2SPIR", "01"),
    ]
    np.testing.assert_array_equal(store.label("01-T1DUAL-InPhase"), store.label("01-T2SPIR"))
    for fold in range(4):
        assert len({c.startswith("01") for c in store.split(fold)[1]}) == 1


@pytest.mark.slow
def test_the_real_cases_as_official_archive_give_the_same_store(
    real_cases: Path, tmp_path: Path, write_chaos_case
) -> None:
    official_tree(real_cases / "labelled", tmp_path / "tree", write_chaos_case)
    path = archive_of(tmp_path / "tree", tmp_path / "CHAOS_Train_Sets.zip")
    store = prepare(path, tmp_path / "store", DataConfig(), folds=3)
    same_arrays(store, prepare(real_cases / "labelled", tmp_path / "expected", DataConfig(), folds=3))


def test_decathlon_with_channels_names_and_values_comes_back_in_predictions(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    source = tmp_path / "Task99"
    for number in range(3):
        labels = np.zeros((35, 50, 35), np.uint8)
        labels[10:20, 10 + number : 30, 10:20] = 3
        labels[20:25, 10:30, 10:20] = 200
        for channel in range(2):
            image = (labels * (channel + 1) + RNG.normal(0, 5, labels.shape) + number).astype(np.float32)
            made.save_nifti(source / f"imagesTr/la_{number}_{channel:04d}.nii.gz", image, GRID)
        labels[:, :3] = 9
        made.save_nifti(source / f"labelsTr/la_{number}.nii.gz", labels, GRID)
    (source / "dataset.json").write_text(
        json.dumps({"labels": {"background": 0, "left atrium": 3, "vein": 200, "ignore": 9}})
    )
    store = prepare(source, tmp_path / "store", DataConfig(), folds=3)
    assert (store.classes.names, store.classes.values) == (("background", "left atrium", "vein"), (0, 3, 200))
    assert (store.spec.num_channels, store.spec.slice_axis, store.image("la_0").shape[:2]) == (2, 2, (35, 2))
    assert set(np.unique(store.label("la_0"))) == {0, 1, 2, 255}
    volume, labels = store.read_source("la_1")
    assert labels is not None
    write_labels(tmp_path / "out.nii.gz", np.where(labels == 255, 0, labels), store.classes, volume)
    assert set(np.unique(np.asarray(nib.load(tmp_path / "out.nii.gz").dataobj))) == {0, 3, 200}


def test_the_fourth_axis_holds_channels_and_prepare_says_so(made: SimpleNamespace, tmp_path: Path) -> None:
    for number in range(2):
        labels = np.zeros((20, 20, 4), np.uint8)
        labels[5:15, 5:15] = 1
        image = RNG.integers(0, 99, (20, 20, 4, 3)).astype(np.int16) + labels[..., None]
        made.save_nifti(tmp_path / f"t/imagesTr/b_{number}.nii.gz", image, GRID)
        made.save_nifti(tmp_path / f"t/labelsTr/b_{number}.nii.gz", labels, GRID)
    store = prepare(tmp_path / "t", tmp_path / "store", DataConfig(), folds=2)
    assert store.spec.num_channels == 3
    (text,) = (f["text"] for f in store.manifest["findings"] if f["rule"] == "fourth-axis")
    assert text.startswith("the fourth axis holds 3 channels")
    assert store.read_source("b_0")[0].data.shape == (3, 20, 20, 4)
    path = tmp_path / "t/imagesTr/b_0.nii.gz"
    assert read_volume(path, channels=3).data.shape == (3, 20, 20, 4)
    with pytest.raises(InputError, match="must have 1 channel, got 3"):
        read_volume(path)
    with pytest.raises(InputError, match="must have 2 channels, got 3"):
        read_volume(path, channels=2)


def test_colour_pictures_of_any_size_are_a_data_set(
    log_lines: list[str], made: SimpleNamespace, tmp_path: Path
) -> None:
    for number, size in enumerate([(60, 40), (50, 70), (33, 91)]):
        pixels = RNG.integers(0, 255, (*size, 3)).astype(np.uint8)
        mask = np.zeros(size, np.uint8)
        mask[5:25, 10:30] = 255
        made.save_picture(tmp_path / f"s/images/p{number}.png", pixels)
        made.save_picture(tmp_path / f"s/labels/p{number}.png", mask)
    store = prepare(tmp_path / "s", tmp_path / "store", DataConfig())
    assert any(line.endswith("label maps: largest component, necks under 16 pixels cut") for line in log_lines)
    assert (store.spec.orientation, store.spec.spacing_mm, store.spec.num_channels) == (None, None, 3)
    assert (store.classes.names, store.classes.values) == (("background", "foreground"), (0, 255))
    assert store.image("p2").shape[:2] == (1, 3)
    assert [int((store.label(c.name) == 1).sum()) for c in store.cases] == [400, 400, 400]
    coarse = prepare(tmp_path / "s", tmp_path / "coarse", DataConfig(spacing_mm=2.0))
    assert [int((coarse.label(c.name) == 1).sum()) for c in coarse.cases] == [pytest.approx(100, abs=20)] * 3


def test_grey_pictures_among_colour_ones_are_colour_too(made: SimpleNamespace, tmp_path: Path) -> None:
    grey = RNG.integers(0, 255, (40, 50)).astype(np.uint8)
    colour = RNG.integers(0, 255, (40, 50, 3)).astype(np.uint8)
    for number, pixels in enumerate((colour, grey, np.repeat(grey[:, :, None], 3, axis=2) // 2)):
        made.save_picture(tmp_path / f"s/images/{number}.png", pixels)
        made.save_picture(tmp_path / f"s/labels/{number}.png", (np.arange(2000).reshape(40, 50) > 999).astype(np.uint8))
    store = prepare(tmp_path / "s", tmp_path / "store", DataConfig())
    assert [store.image(case.name).shape[:2] for case in store.cases] == [(1, 3)] * 3
    assert len(store.manifest["cases"][1]["intensity"]) == 3
    (one,) = store.image("1")
    np.testing.assert_array_equal(one[0], one[2])
    volume, _ = store.read_source("1")
    whole = VolumeSlices(volume, store.spec)  # as prediction sees it
    assert whole[:].shape[1] == 3


def test_masks_that_are_not_quite_black_and_white_have_two_classes(made: SimpleNamespace, tmp_path: Path) -> None:
    for name, stray in (("stray", (1, 254)), ("classes", (1, 2))):
        mask = np.zeros((60, 60), np.uint8)
        mask[10:40, 10:40] = 255
        many = slice(50, 52 if name == "stray" else 58)
        mask[many, 5:8], mask[20, 20:24] = stray
        made.save_picture(tmp_path / f"{name}/images/a.png", RNG.integers(0, 255, (60, 60)).astype(np.uint8))
        made.save_picture(tmp_path / f"{name}/labels/a.png", mask)
    store = prepare(tmp_path / "stray", tmp_path / "a", DataConfig())
    assert (store.classes.values, [f["rule"] for f in store.manifest["findings"]]) == ((0, 255), ["mask-greys"])
    assert prepare(tmp_path / "classes", tmp_path / "b", DataConfig()).classes.values == (0, 1, 2, 255)


def test_several_masks_of_one_picture_are_one(log_lines: list[str], made: SimpleNamespace, tmp_path: Path) -> None:
    masks = [np.zeros((20, 30), np.uint8) for _ in range(3)]
    masks[0][2:6, 2:6], masks[1][10:14, 10:20], masks[2][3:5, 3:9] = 255, 255, 255
    made.save_picture(tmp_path / "s/a.png", RNG.integers(0, 255, (20, 30)).astype(np.uint8))
    for name, mask in zip(("a_mask", "a_mask_1", "a_mask_2"), masks, strict=True):
        made.save_picture(tmp_path / f"s/{name}.png", mask)
    store = prepare(tmp_path / "s", tmp_path / "store", DataConfig())
    expected = np.max(masks, axis=0).T[:, :, None] > 0
    np.testing.assert_array_equal(store.read_source("a")[1], expected)
    assert store.manifest["cases"][0]["voxels_per_class"][1] == expected.sum()
    prepare(tmp_path / "s", tmp_path / "store", DataConfig())
    assert log_lines[-1].endswith("is up to date, nothing to do")
    made.save_picture(tmp_path / "s/a_mask_2.png", masks[0])
    with pytest.raises(InputError, match=r"a_mask_2\.png: is not the file that"):
        store.read_source("a")


def test_pictures_larger_than_a_training_window_are_sampled_down_to_it(made: SimpleNamespace, tmp_path: Path) -> None:
    for number in range(2):
        for folder, low, top in (("images", 0, 255), ("labels", -1, 2)):  # more background than foreground
            array = RNG.integers(low, top, (1400, 1600)).clip(0).astype(np.uint8)
            made.save_picture(tmp_path / f"s/{folder}/{number}.png", array)
    store = prepare(tmp_path / "s", tmp_path / "store", DataConfig())
    assert store.spec.size == (512, 512)
    assert store.spec.spacing_mm == pytest.approx(1600 / 512, rel=0.02)


PLANTED = {
    "PatientName": "Mustermann^Erika",
    "PatientID": "SSN-831-77-4242",
    "PatientBirthDate": "19640813",
    "StudyDate": "20190307",
    "InstitutionName": "Klinikum Musterstadt",
    "OtherPatientNames": "Gabler^Erika",
    "SeriesDescription": "scan of Mustermann",
    "AccessionNumber": "ACC90210",
}


def test_what_dicom_headers_say_of_a_patient_reaches_no_file_and_no_line(
    log_lines: list[str], made: SimpleNamespace, tmp_path: Path, write_series
) -> None:
    for number in (1, 2):
        case = tmp_path / f"tree/MR/{number}/T2SPIR"
        data = RNG.integers(0, 900, (20, 20, 4)).astype(np.int16)
        paths = write_series(case / "DICOM_anon", data, np.diag([-1.5, -1.5, 8, 1]), **PLANTED)
        for path in paths:
            made.save_picture(case / f"Ground/{path.stem}.png", np.full((20, 20), 63, np.uint8))
    store = prepare(tmp_path / "tree", tmp_path / "store", DataConfig(), folds=2)
    volume, labels = store.read_source("01-T2SPIR")
    assert labels is not None
    write_labels(store.path / "prediction.nii", labels, store.classes, volume)
    broken = tmp_path / "tree/MR/1/T2SPIR/DICOM_anon/IMG-0004-00002.dcm"
    raw = broken.read_bytes()
    for cut in (
        raw[:-20],
        raw.replace(b"\x28\x00\x30\x00DS", b"\x28\x00\x30\x00PN"),
        raw.replace(b"-1.5", b"Erik", 1),
        raw[:400],
    ):
        broken.write_bytes(cut)
        try:
            read_volume(broken.parent)
        except InputError as error:
            log_lines.append(str(error))
    written = b"".join(p.read_bytes() for p in store.path.rglob("*") if p.is_file()) + "\n".join(log_lines).encode()
    for value in (*PLANTED.values(), "Mustermann", "Erika", "Gabler"):
        assert value.encode() not in written


def test_nifti_headers_free_text_reaches_no_file(source: Path, tmp_path: Path) -> None:
    for path in source.glob("*.nii.gz"):
        image = nib.load(path)
        for field in ("descrip", "db_name", "aux_file", "intent_name"):
            image.header[field] = b"Mustermann"
        nib.save(image, path)
    store = prepare(source, tmp_path / "store", DataConfig())
    volume, labels = store.read_source("01-T2SPIR")
    assert labels is not None
    assert hashlib.sha256((source / "01-T2SPIR-src.nii.gz").read_bytes()).hexdigest() == store.cases[0].image_sha256
    write_labels(store.path / "prediction.nii", labels, store.classes, volume)
    assert not any(b"Mustermann" in p.read_bytes() for p in store.path.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("images", "masks", "expected"),
    [
        # By number, not by name
        (["1.dcm", "2.dcm", "10.dcm"], ["001.png", "002.png", "010.png"], ["001.png", "002.png", "010.png"]),
        # By order
        (["IM-4-0001.dcm", "IM-4-0002.dcm"], ["GT-9-0003.png", "GT-9-0004.png"], ["GT-9-0003.png", "GT-9-0004.png"]),
        # By the number that differs
        (["i0007,0000b.dcm", "i0008,0000b.dcm"], ["m_007.png", "m_008.png"], ["m_007.png", "m_008.png"]),
        (["a.dcm", "b.dcm"], ["x.png", "y.png"], ["x.png", "y.png"]),
        (["1.dcm", "2.dcm", "10.dcm"], ["004.png", "005.png", "006.png"], None),  # orders and numbers differ
        (["1.dcm", "2.dcm", "10.dcm"], ["1.png", "2.png", "11.png"], None),
    ],
)
def test_masks_of_slices_are_paired_by_number_or_refused(
    images: list[str], masks: list[str], expected: list[str] | None
) -> None:
    pairs = pair_by_number(images, masks)
    assert (None if pairs is None else [pairs[name] for name in images]) == expected


def test_a_folder_of_files_that_are_not_read_names_their_kind(tmp_path: Path) -> None:
    for name in ("a.raw", "b.minc"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"\.minc, \.raw files are not read .* the formats are NIfTI"):
        find_cases(tmp_path)


def test_of_files_with_the_content_that_a_store_has_the_one_of_its_ending_is_taken(tmp_path: Path) -> None:
    for name in ("Backup of a.nii.gz.bak", "a.nii.gz"):
        (tmp_path / name).write_bytes(b"scan")
    digest = content_hash(tmp_path / "a.nii.gz")
    assert find_by_hash(tmp_path, {"0001/image-1.nii.gz": digest}) == {"0001/image-1.nii.gz": tmp_path / "a.nii.gz"}
    (tmp_path / "a.nii.gz").rename(tmp_path / "a.renamed")
    assert find_by_hash(tmp_path, {"0001/image-1.nii.gz": digest})
