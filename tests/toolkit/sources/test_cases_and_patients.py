"""Files of several moments, several sequences of a visit, and lists of cases: which files are cases, and whose."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from attunet.config import DataConfig
from attunet.errors import InputError
from attunet.preparation.prepare import prepare
from attunet.sources.find_cases import find_cases
from attunet.store import Store

Truth = dict[str, np.ndarray]  # labels by case
PATIENTS = (1, 2, 3)


def stored(root: Path, truth: Truth, patients: dict[str, str]) -> Store:
    """Prepare a folder, and check its cases, their labels and their patients."""
    store = prepare(root, root.with_name("store"), DataConfig(), folds=3)
    assert {case.name: case.patient for case in store.cases} == patients
    for case, labels in truth.items():
        np.testing.assert_array_equal(store.read_source(case)[1], labels, err_msg=case)
    return store


Frames = dict[str, tuple[np.ndarray, np.ndarray]]


def cine(made: SimpleNamespace, path: Path, frames: Frames) -> None:
    made.save_nifti(path, np.stack([image for image, _ in frames.values()], axis=-1))


def numbered_folders(made: SimpleNamespace, root: Path, patient: int, frames: Frames) -> Truth:
    """001/001_SA_CINE.nii.gz beside 001_SA_ED.nii.gz and 001_SA_ED_gt.nii.gz, as in M&Ms-2."""
    name, truth = f"{patient:03d}", {}
    cine(made, root / name / f"{name}_SA_CINE.nii.gz", frames)
    for moment, frame in zip(("ED", "ES"), frames, strict=False):
        image, labels = frames[frame]
        made.save_nifti(root / name / f"{name}_SA_{moment}.nii.gz", image)
        made.save_nifti(root / name / f"{name}_SA_{moment}_gt.nii.gz", labels)
        truth[f"{name}_{name}_SA_{moment}"] = labels
    return truth


def no_folders(made: SimpleNamespace, root: Path, patient: int, frames: Frames) -> Truth:
    """Uncompressed files of all patients in one folder; the third moment has no file of its own."""
    truth = {}
    cine(made, root / f"heart{patient}_cine.nii", frames)
    for frame in list(frames)[:2]:
        image, labels = frames[frame]
        made.save_nifti(root / f"heart{patient}_t{frame}.nii", image)
        made.save_nifti(root / f"heart{patient}_t{frame}_seg.nii", labels)
        truth[f"heart{patient}_t{frame}"] = labels
    return truth


def names_without_the_patient(made: SimpleNamespace, root: Path, patient: int, frames: Frames) -> Truth:
    truth = {}
    cine(made, root / f"p{patient}/all.nii.gz", frames)
    for frame, (image, labels) in frames.items():
        made.save_nifti(root / f"p{patient}/frame{frame}.nii.gz", image)
        made.save_nifti(root / f"p{patient}/frame{frame}_label.nii.gz", labels)
        truth[f"p{patient}_frame{frame}"] = labels
    return truth


@pytest.mark.parametrize(
    ("build", "patient", "note"),
    [
        (numbered_folders, "{:03d}", "3 of 9 images have several moments and no mask and are left out, first 001_SA_"),
        (no_folders, "heart{}", "3 of 9 images have several moments and no mask and are left out, first heart1_cine"),
        (names_without_the_patient, "p{}", "3 of 12 images have several moments and no mask and are left out, first "),
    ],
)
def test_files_of_several_moments_beside_frames_with_masks_are_left_out(
    made: SimpleNamespace, tmp_path: Path, build: Callable[..., Truth], patient: str, note: str
) -> None:
    truth, patients = {}, {}
    for number in PATIENTS:
        frames = {str(frame): made.body(10 * number + frame) for frame in (0, 5, 9)}
        of_patient = build(made, tmp_path / "s", number, frames)
        truth |= of_patient
        patients |= dict.fromkeys(of_patient, patient.format(number))
    assert find_cases(tmp_path / "s").notes[0].startswith(note)
    store = stored(tmp_path / "s", truth, patients)
    assert store.spec.num_channels == 1
    assert sorted(len(fold) for fold in store.splits.folds) == [1, 1, 1]


@pytest.mark.parametrize(
    ("patient", "visits", "sequences", "mask"),
    [
        ("P{:03d}", ("2019-03-04", "2020-11-30"), ("adc", "dwi", "t2"), "mask"),
        ("UPENN-GBM-{:05d}", ("11", "21"), ("FLAIR", "T1", "T1GD", "T2"), "segm"),
    ],
    ids=["dates", "numbers"],
)
def test_sequences_of_a_visit_are_channels_and_visits_are_of_one_patient(
    made: SimpleNamespace, tmp_path: Path, patient: str, visits: tuple[str, ...], sequences: tuple[str, ...], mask: str
) -> None:
    truth, images, patients = {}, {}, {}
    for number in PATIENTS:
        for at, visit in enumerate(visits):
            case = f"{patient.format(number)}_{visit}"
            patients[case] = patient.format(number)
            image, truth[case] = made.body(10 * number + at)
            images[case] = np.stack([image + 1000 * k for k in range(len(sequences))])
            for sequence, array in zip(sequences, images[case], strict=True):
                made.save_nifti(tmp_path / f"s/{case}/{case}_{sequence}.nii.gz", array)
            made.save_nifti(tmp_path / f"s/{case}/{case}_{mask}.nii.gz", truth[case])
    store = stored(tmp_path / "s", truth, patients)
    assert store.channels == sequences
    for case, expected in images.items():
        np.testing.assert_array_equal(store.read_source(case)[0].data, expected, err_msg=case)


def listed(made: SimpleNamespace, root: Path, part: str, numbers: tuple[int, ...], channels: int) -> Truth:
    truth = {}
    for number in numbers:
        image, truth[f"la_{number:03d}"] = made.body(number)
        for channel in range(channels):
            ending = f"_{channel:04d}" if channels > 1 else ""
            made.save_nifti(root / f"images{part}/la_{number:03d}{ending}.nii.gz", image)
        made.save_nifti(root / f"labels{part}/la_{number:03d}.nii.gz", truth[f"la_{number:03d}"])
    return truth


def test_a_list_may_leave_out_the_ending_of_channels_and_have_the_slashes_of_windows(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    truth = listed(made, tmp_path / "s", "Tr", (0, 1, 2, 3), 2)
    rows = [{"image": rf".\imagesTr\{c}.nii.gz", "label": rf".\labelsTr\{c}.nii.gz"} for c in list(truth)[1:]]
    text = {"modality": {"0": "T1", "1": "T2"}, "labels": {"0": "background", "1": "a", "2": "b"}, "training": rows}
    (tmp_path / "s/dataset.json").write_text(json.dumps(text))
    del truth["la_000"]
    store = stored(tmp_path / "s", truth, {case: case for case in truth})
    assert store.channels == ("T1", "T2")
    assert find_cases(tmp_path / "s").notes == (
        "1 of 4 cases are not in the training list of dataset.json and are left out: la_000",
    )


def test_each_part_of_a_data_set_has_its_own_list(made: SimpleNamespace, tmp_path: Path) -> None:
    truth = listed(made, tmp_path / "s", "Tr", (1, 2, 3), 1) | listed(made, tmp_path / "s", "Va", (4, 5), 1)
    text = {
        "labels": {"background": 0, "a": 1, "b": 2},
        "training": [{"image": f"imagesTr/la_00{number}.nii.gz"} for number in (1, 3)],
        "validation": ["./imagesVa/la_005.nii.gz"],
    }
    (tmp_path / "s/dataset.json").write_text(json.dumps(text))
    assert find_cases(tmp_path / "s").notes == (
        "1 of 3 cases are not in the training list of dataset.json and are left out: la_002",
        "1 of 2 cases are not in the validation list of dataset.json and are left out: la_004",
    )
    kept = {case: labels for case, labels in truth.items() if case not in ("la_002", "la_004")}
    stored(tmp_path / "s", kept, {case: case for case in kept})


@pytest.mark.parametrize(
    ("folders", "patients"),
    [
        (["pat1/visit1", "pat1/visit2", "pat2/visit1"], ["pat1", "pat1", "pat2"]),
        (["P01/20190304", "P01/20201130", "P02/20190304"], ["P01", "P01", "P02"]),
        (["P01/20190304", "P01/20201130", "P02/20170102"], ["P01", "P01", "P02"]),
        (["knee1/left", "knee1/right", "knee2/left"], ["knee1", "knee1", "knee2"]),
        (["CT/pat1", "MR/pat1", "CT/pat2"], ["pat1", "pat1", "pat2"]),
        (["visit1/pat1", "visit2/pat1", "visit1/pat2"], ["pat1", "pat1", "pat2"]),
        (["2018/pat1", "2019/pat1", "2018/pat2"], ["pat1", "pat1", "pat2"]),
        (["pat1/CT/scan_a", "pat1/MR/scan_a", "pat2/CT/scan_a"], ["pat1", "pat1", "pat2"]),
        (["siteA/1", "siteB/1", "siteA/2"], ["siteA_1", "siteB_1", "siteA_2"]),
        (["train/1", "test/1", "train/2"], ["train_1", "test_1", "train_2"]),
    ],
)
def test_folders_of_visits_are_of_one_patient_and_sets_count_anew(
    made: SimpleNamespace, tmp_path: Path, folders: list[str], patients: list[str]
) -> None:
    for seed, folder in enumerate(folders):
        image, labels = made.body(seed)
        made.save_nifti(tmp_path / folder / "ct.nii.gz", image)
        made.save_nifti(tmp_path / folder / "seg.nii.gz", labels)
    source = find_cases(tmp_path)
    of = {case.images[0].parent.relative_to(tmp_path).as_posix(): case.patient for case in source.cases}
    assert [of[folder] for folder in folders] == patients
    assert ("same-patient" in {decision.rule for decision in source.decisions}) == (len(set(patients)) == 2)


def test_a_set_of_images_called_by_moments_is_no_patient(made: SimpleNamespace, tmp_path: Path) -> None:
    for seed, (part, name) in enumerate((("train", "t0001"), ("train", "t0002"), ("val", "v0001"))):
        image, labels = made.plane(seed)
        made.save_picture(tmp_path / f"{part}/images/{name}.png", image)
        made.save_picture(tmp_path / f"{part}/masks/{name}.png", labels)
    assert {case.patient for case in find_cases(tmp_path).cases} == {"train_t0001", "train_t0002", "val_v0001"}


def test_the_only_image_of_each_folder_may_have_any_name(made: SimpleNamespace, tmp_path: Path) -> None:
    for seed, name in enumerate(("Panoramix", "Data/CTACardio", "MRHead")):
        image, labels = made.body(seed)
        made.save_nifti(tmp_path / f"case{seed}/{name}.nii.gz", image)
        made.save_nifti(tmp_path / f"case{seed}/Segmentation.nii.gz", labels)
        made.save_picture(tmp_path / f"case{seed}/Master Scene View.png", made.plane(seed)[0])  # 3D Slicer's
        made.save_picture(tmp_path / f"case{seed}/mask_view.png", made.plane(seed)[0])
    source = find_cases(tmp_path)
    assert [[path.name for path in case.images] for case in source.cases] == [
        ["Panoramix.nii.gz"],
        ["CTACardio.nii.gz"],
        ["MRHead.nii.gz"],
    ]
    assert [len(case.labels) for case in source.cases] == [1, 1, 1]
    assert "whatever its name: Panoramix, Data/CTACardio, MRHead" in source.decisions[0].text
    assert source.notes == ("6 of 12 files belong to no case and are left out, first case0/Master Scene View.png",)


def test_folders_of_a_single_visit_with_a_date(made: SimpleNamespace, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        image, labels = made.body(number)
        for name, array in (("t1", image), ("t2", image + 1), ("seg", labels)):
            made.save_nifti(tmp_path / f"pat{number}/2001010{number}/{name}.nii.gz", array)
    source = find_cases(tmp_path)
    assert source.channels == ("t1", "t2")
    assert [case.case for case in source.cases] == ["20010101", "20010102", "20010103"]


@pytest.mark.parametrize("visits", [("visit1", "visit2"), ("left", "right"), ("2019-03-04", "2020-11-30")])
def test_images_beside_masks_in_folders_of_visits(
    made: SimpleNamespace, tmp_path: Path, visits: tuple[str, str]
) -> None:
    for number in PATIENTS:
        for at, visit in enumerate(visits):
            image, labels = made.body(10 * number + at)
            made.save_nifti(tmp_path / f"pat{number}/{visit}/{visit}.nii.gz", image)
            made.save_nifti(tmp_path / f"pat{number}/{visit}/{visit}_seg.nii.gz", labels)
    source = find_cases(tmp_path)
    assert {case.images[0].parent.parent.name: case.patient for case in source.cases} == {
        f"pat{number}": f"pat{number}" for number in PATIENTS
    }
    assert len(source.cases) == 6


def test_a_mask_without_its_image_is_no_image(made: SimpleNamespace, tmp_path: Path) -> None:
    for number in PATIENTS:
        image, labels = made.body(number)
        made.save_nifti(tmp_path / f"pat{number}/pat{number}.nii.gz", image)
        made.save_nifti(tmp_path / f"pat{number}/pat{number}_label.nii.gz", labels)
    (tmp_path / "pat2/pat2.nii.gz").unlink()
    with pytest.raises(InputError, match=r"pat2_label\.nii\.gz: this mask has no image of its name beside it"):
        find_cases(tmp_path)


def test_an_image_and_a_mask_in_folders_of_two_patients_are_no_case(made: SimpleNamespace, tmp_path: Path) -> None:
    image, labels = made.body(1)
    made.save_nifti(tmp_path / "siteA/sub1/image.nii.gz", image)  # the mask is missing
    made.save_nifti(tmp_path / "siteA/sub3/seg.nii.gz", labels)  # the image is missing
    made.save_nifti(tmp_path / "siteB/sub2/image.nii.gz", image)
    made.save_nifti(tmp_path / "siteB/sub2/seg.nii.gz", labels)
    with pytest.raises(InputError, match="fits no known layout"):
        find_cases(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ["data/img2", "data/img4", "data/img1_seg", "data/img3_seg"],
        ["data/p1/scan1/ct", "data/p2/scan1/seg"],
        ["20010102/P7/anat/ct", "20010102/P8/anat/ct", "20010102/P8/anat/mask", "20020102/P7/anat/mask"],
    ],
)
def test_files_with_other_numbers_are_no_case(made: SimpleNamespace, tmp_path: Path, names: list[str]) -> None:
    for name in names:
        made.save_nifti(tmp_path / f"{name}.nii.gz", made.body(1)[1])
    with pytest.raises(InputError, match=r"fits no known layout|no image of its name|none of the images"):
        find_cases(tmp_path)
