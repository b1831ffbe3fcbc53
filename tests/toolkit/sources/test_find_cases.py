import json
from pathlib import Path

import numpy as np
import pytest

from attunet.classes import CHAOS_MR
from attunet.errors import InputError
from attunet.sources.case_files import SourceOptions
from attunet.sources.find_cases import LAYOUTS, find_cases
from attunet.sources.labels.codings import CHAOS_CODINGS, choose_coding, label_values, parse_classes, to_indices


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_pairs_of_image_and_mask_are_cases_and_numbers_are_patients(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "02-T2SPIR-src.nii.gz",
        "02-T2SPIR-mask.nii.gz",
        "02-T1DUALin-src.nii.gz",
        "02-T1DUALin-mask.nii",
        "kim-src.nii",
        "notes.txt",
    )
    found = find_cases(tmp_path)
    assert [(c.case, c.patient, c.labels and c.labels[0].name) for c in found.cases] == [
        ("02-T1DUALin", "02", "02-T1DUALin-mask.nii"),
        ("02-T2SPIR", "02", "02-T2SPIR-mask.nii.gz"),
        ("kim", "kim", ()),
    ]
    assert (found.layout, found.codings[0]) == ("src-mask", CHAOS_MR)
    assert "3 files" in found.reason


def test_cases_are_found_below_the_folder_but_not_behind_links_out_of_it(tmp_path: Path) -> None:
    source = touch(tmp_path / "source", "site/a-src.nii.gz", ".hidden/b-src.nii.gz", ".c-src.nii.gz")
    touch(tmp_path, "secret-src.nii.gz", "far/d-src.nii.gz")
    (source / "e-src.nii.gz").symlink_to(tmp_path / "secret-src.nii.gz")
    (source / "far").symlink_to(tmp_path / "far")
    assert [c.case for c in find_cases(source).cases] == ["a"]


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        ([], "the folder has no files"),
        (["a.txt"], r"\.txt files are not read"),
        (["a-mask.nii.gz", "b-src.nii.gz"], "a-mask.nii.gz: this mask has no image a-src"),
        (["a-src.nii.gz", "a-src.nii"], "is there twice"),
        (["x/a-src.nii.gz", "y/a-src.nii.gz"], "is there twice"),
        (["a\n-src.nii.gz"], "a case's name must be"),
        (
            [
                "images/cat.png",
                "images/dog.png",
                *(f"masks/task-{n}-annotation-{n}-by-1-tag-Cell-0.png" for n in (7, 8, 9)),
            ],
            r"task-7-annotation-7-by-1-tag-Cell-0\.png: no reading of its task's number .*; export the project as JSON",
        ),
        (
            [*(f"images/vol{n}.nii.gz" for n in (1, 2, 10)), *(f"labels/seg{n}.nii.gz" for n in (2, 3, 10))],
            r"seg3\.nii\.gz: this mask has no image of its name or number in images/",
        ),
    ],
)
def test_a_folder_that_makes_no_sense_is_one_line(tmp_path: Path, names: list[str], rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        find_cases(touch(tmp_path, *names))


def test_a_wrong_path_or_layout_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_cases(tmp_path / "absent")
    with pytest.raises(InputError, match="must be a folder"):
        find_cases(touch(tmp_path, "file") / "file")
    with pytest.raises(InputError, match=r"layout: must be one of auto, .*, got 'dicom-rt'") as error:
        find_cases(tmp_path, SourceOptions("dicom-rt"))
    assert all(layout in str(error.value) for layout in LAYOUTS)


@pytest.mark.parametrize("coding", CHAOS_CODINGS)
def test_every_way_to_write_the_organs_means_the_same(coding) -> None:
    labels = np.array(coding.values, dtype=np.int16)[np.arange(20).reshape(4, 5) % 5]
    chosen = choose_coding(label_values(labels), CHAOS_CODINGS, "mask")
    assert chosen == coding
    np.testing.assert_array_equal(
        to_indices(labels, {v: i for i, v in enumerate(chosen.values)}, "mask"), np.arange(20).reshape(4, 5) % 5
    )


@pytest.mark.parametrize(
    ("values", "named"), [((0, 1, 5), 5), ((0, 63, 80), 63), ((0, 240, 252), 240), ((-1, 0), -1), ((0, 10**9), 10**9)]
)
def test_an_unknown_value_is_named_with_its_file(values: tuple[int, ...], named: int) -> None:
    with pytest.raises(
        InputError,
        match=f"^07-mask.nii: label values must be among .* got {named}; name it in dataset.json or with --classes$",
    ):
        choose_coding(values, CHAOS_CODINGS, "07-mask.nii")


def test_values_far_apart_are_counted_and_mapped_without_a_table() -> None:
    labels = np.array([[0, 5, 10**9], [0, 0, 5]], dtype=np.int64)
    assert label_values(labels) == {0: 3, 5: 2, 10**9: 1}
    assert to_indices(labels, {0: 0, 5: 1, 10**9: 2}, "mask").tolist() == [[0, 1, 2], [0, 0, 1]]
    with pytest.raises(InputError, match="got 5"):
        to_indices(labels, {0: 0, 10**9: 1}, "mask")


def test_images_and_labels_in_two_folders_match_by_name(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "images/a.png",
        "images/b.png",
        "images/site/c.png",
        "masks/a.png",
        "masks/site/c.tif",
        "images/readme.md",
    )
    found = find_cases(tmp_path)
    assert found.layout == "images-labels"
    assert [(c.case, c.labels and c.labels[0].name) for c in found.cases] == [
        ("a", "a.png"),
        ("b", ()),
        ("site_c", "c.tif"),
    ]
    touch(tmp_path, "masks/z.png")
    with pytest.raises(InputError, match=r"z\.png: this mask has no image of its name or number in images/"):
        find_cases(tmp_path)


def test_masks_may_say_that_they_are_masks(tmp_path: Path) -> None:
    touch(tmp_path / "folders", "images/a.png", "images/b.png", "labels/a_mask.png", "labels/b_mask.png")
    assert [c.labels and c.labels[0].name for c in find_cases(tmp_path / "folders").cases] == [
        "a_mask.png",
        "b_mask.png",
    ]
    touch(tmp_path / "beside", "benign (1).png", "benign (1)_mask.png", "benign (2).png")
    found = find_cases(tmp_path / "beside")
    assert found.layout == "suffix"
    assert [(c.case, c.labels and c.labels[0].name) for c in found.cases] == [
        ("benign (1)", "benign (1)_mask.png"),
        ("benign (2)", ()),
    ]
    touch(tmp_path / "beside", "benign (1)_mask_1.png", "benign (1)_seg.png")
    with pytest.raises(InputError, match="has a second mask"):
        find_cases(tmp_path / "beside")


def test_a_mask_that_names_no_class_beside_masks_that_do_is_one_line(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/b.png", "images/c.png", "masks/c.png")
    touch(tmp_path, *(f"masks/{case}_{organ}.png" for case in "ab" for organ in ("liver", "spleen")))
    with pytest.raises(InputError, match=r"c\.png: the name of a mask must say which class it is.* \(liver, spleen\)"):
        find_cases(tmp_path)


def describe(folder: Path, **entries: object) -> None:
    (folder / "dataset.json").write_text(json.dumps(entries))


def test_nnunets_endings_are_channels(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"imagesTr/{c}_{k:04d}.nii.gz" for c in ("la_001", "la_002") for k in range(2)),
        "labelsTr/la_001.nii.gz",
    )
    touch(tmp_path, "labelsTr/la_002.nii.gz", "imagesTs/la_003_0000.nii.gz", "imagesTr/._la_001_0000.nii.gz")
    describe(
        tmp_path, labels={"background": 0, "tumour": 7, "liver": 3, "ignore": 9}, channel_names={"0": "T1", "1": "T2"}
    )
    found = find_cases(tmp_path)
    assert (found.layout, found.channels) == ("decathlon", ("T1", "T2"))
    assert [(c.case, [p.name for p in c.images]) for c in found.cases] == [
        ("la_001", ["la_001_0000.nii.gz", "la_001_0001.nii.gz"]),
        ("la_002", ["la_002_0000.nii.gz", "la_002_0001.nii.gz"]),
    ]
    assert (found.codings[0].names, found.codings[0].values, found.ignored) == (
        ("background", "liver", "tumour"),
        (0, 3, 7),
        9,
    )


def test_numbers_at_the_end_of_a_name_are_no_channels_where_masks_have_them(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/scan_{k:04d}.png" for k in range(3)), *(f"labels/scan_{k:04d}.png" for k in range(3)))
    assert [c.case for c in find_cases(tmp_path).cases] == ["scan_0000", "scan_0001", "scan_0002"]


def test_decathlon_names_its_classes(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/hippo_001.nii.gz", "labelsTr/hippo_001.nii.gz")
    describe(tmp_path, labels={"0": "background", "2": "Posterior", "1": "Anterior"}, modality={"0": "CT"})
    assert find_cases(tmp_path).codings[0].names == ("background", "Anterior", "Posterior")
    assert find_cases(tmp_path).channels == ("CT",)
    for labels, rule in (
        ({"background": 0, "whole": [1, 2]}, "regions are not supported"),
        ({"liver": 1}, "must have the value 0"),
        ([1], "must give the name"),
        ({}, "must give the name"),
    ):
        describe(tmp_path, labels=labels)
        with pytest.raises(InputError, match=rule):
            find_cases(tmp_path)
    (tmp_path / "dataset.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="cannot be read as JSON"):
        find_cases(tmp_path)


def test_the_official_chaos_tree_is_told_by_its_folders(tmp_path: Path) -> None:
    mr = tmp_path / "Train_Sets/MR"
    touch(
        mr,
        "1/T2SPIR/DICOM_anon/a.dcm",
        "1/T2SPIR/Ground/a.png",
        "1/T1DUAL/DICOM_anon/InPhase/b.dcm",
        "1/T1DUAL/DICOM_anon/OutPhase/c.dcm",
    )
    touch(mr, "1/T1DUAL/Ground/b.png", "13/T2SPIR/DICOM_anon/a.dcm")
    touch(tmp_path / "Train_Sets/CT", "5/DICOM_anon/i.dcm", "5/Ground/liver_GT_000.png")
    for root in (tmp_path, tmp_path / "Train_Sets"):
        found = find_cases(root)
        assert found.layout == "chaos-mr"
        assert [(c.case, c.patient, c.images[0].name, bool(c.labels)) for c in found.cases] == [
            ("01-T1DUAL-InPhase", "01", "InPhase", True),
            ("01-T1DUAL-OutPhase", "01", "OutPhase", True),
            ("01-T2SPIR", "01", "DICOM_anon", True),
            ("13-T2SPIR", "13", "DICOM_anon", False),
        ]
        assert "CT series are left out" in found.notes[0]
    assert len(find_cases(mr).cases) == 4
    (ct,) = find_cases(tmp_path, SourceOptions("chaos-ct")).cases
    assert (ct.case, ct.patient) == ("05-CT", "05")
    assert find_cases(tmp_path).coding((0, 61, 128, 255), "mask").names[1:] == (
        "liver",
        "right kidney",
        "left kidney",
        "spleen",
    )
    with pytest.raises(InputError, match="got 90"):
        find_cases(tmp_path).coding((0, 90), "mask")
    (tmp_path / "Train_Sets/MR/13/T2SPIR/DICOM_anon").rename(tmp_path / "Train_Sets/MR/13/T2SPIR/dicom_anon")
    assert [case.case for case in find_cases(tmp_path).cases][-1] == "13-T2SPIR"


def test_a_dataset_json_says_which_classes_were_drawn(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{kind}Tr/{case}.nii.gz" for kind in ("images", "labels") for case in ("a", "b")))
    about = {"labels": {"background": 0, "liver": 1, "spleen": 2}, "labelled": {"a": ["liver"]}}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    assert {case.case: case.drawn for case in find_cases(tmp_path).cases} == {"a": ("liver",), "b": None}
    (tmp_path / "dataset.json").write_text(json.dumps({**about, "labelled": {"c": ["liver"]}}))
    with pytest.raises(InputError, match=r"dataset\.json: 'c' is no case with a mask"):
        find_cases(tmp_path)


def test_own_classes_and_patients(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/p{p}_scan{s}.png" for p in (1, 2) for s in (1, 2)), "labels/p1_scan1.png")
    found = find_cases(
        tmp_path,
        SourceOptions(classes=parse_classes("left kidney=3, right kidney = 2,ignore=9"), case_pattern=r"^(p\d+)_"),
    )
    assert [c.patient for c in found.cases] == ["p1", "p1", "p2", "p2"]
    assert found.codings[0].names == ("background", "left kidney", "right kidney")
    assert (found.codings[0].values, found.ignored) == ((0, 3, 2), 9)
    for pattern, rule in (
        (r"^(x)", "must match the patient"),
        (r"p\d", "must match the patient"),
        ("(", "must be a regular expression"),
        ("(" * 5000 + ")" * 5000, "must be a regular expression"),
    ):
        with pytest.raises(InputError, match=rule):
            find_cases(tmp_path, SourceOptions(case_pattern=pattern))


@pytest.mark.parametrize(
    "text", ["", "liver", "liver=", "=1", "liver=x", "liver=1,liver=2", "liver=1,spleen=1", "liver=0", "liver=²"]
)
def test_classes_that_cannot_be_read_are_one_line(text: str) -> None:
    with pytest.raises(InputError, match="classes: "):
        parse_classes(text)


@pytest.mark.parametrize("inside", ["", "Task04/", "a/b/Task04/"])
def test_a_folder_around_the_data_set_is_looked_through(tmp_path: Path, inside: str) -> None:
    names = (
        "imagesTr/x_0.nii.gz",
        "imagesTr/x_1.nii.gz",
        "labelsTr/x_0.nii.gz",
        "labelsTr/x_1.nii.gz",
        "imagesTs/x_9.nii.gz",
    )
    touch(
        tmp_path,
        *(inside + name for name in names),
        inside + "imagesTr/._x_0.nii.gz",
        "__MACOSX/._Task04",
        "README.txt",
    )
    (tmp_path / inside / "dataset.json").write_text('{"labels": {"0": "background", "7": "tumour"}}')
    found = find_cases(tmp_path)
    assert (found.layout, found.root, [c.case for c in found.cases]) == ("decathlon", tmp_path, ["x_0", "x_1"])
    assert found.codings[0].values == (0, 7)


def test_pairs_of_folders_in_several_places_are_one_source(tmp_path: Path) -> None:
    for part, number in (("train", 2), ("val", 1)):
        for index in range(number):
            touch(tmp_path, f"set/{part}/images/p{index}.jpg", f"set/{part}/masks/p{index}_mask.png")
    found = find_cases(tmp_path)
    assert [(c.case, c.labels and c.labels[0].name) for c in found.cases] == [
        ("set_train_p0", "p0_mask.png"),
        ("set_train_p1", "p1_mask.png"),
        ("set_val_p0", "p0_mask.png"),
    ]
    assert "2 of its folders" in found.reason


def test_names_match_however_their_accents_are_written(tmp_path: Path) -> None:
    touch(tmp_path, "images/Bild ä.jpg", "labels/Bild a\u0308.png")
    (case,) = find_cases(tmp_path).cases
    assert case.labels


# How public sets name a picture and its masks: files, layout, and per case the files of its mask.
PUBLIC = {
    "skin lesions": (
        ["Data/ISIC_1.jpg", "Data/LICENSE.txt", "Data_GroundTruth/ISIC_1_Segmentation.png"],
        {"ISIC_1": ["ISIC_1_Segmentation.png"]},
    ),
    "polyps": (["PNG/Original/1.png", "PNG/Ground Truth/1.png"], {"PNG_1": ["1.png"]}),
    "vessels": (
        [
            "training/images/21_training.tif",
            *("training/1st_manual/21_manual1.png", "training/mask/21_training_mask.png"),
            *("test/images/01_test.tif", "test/mask/01_test_mask.png"),  # without truth: where the camera sees anything
        ],
        {"training_21_training": ["21_manual1.png"]},
    ),
    "chest": (["Lungs/CXR_png/a_0.png", "Lungs/masks/a_0_mask.png"], {"Lungs_a_0": ["a_0_mask.png"]}),
    "several lesions": (
        ["b (1).png", "b (1)_mask.png", "b (1)_mask_1.png"],
        {"b (1)": ["b (1)_mask.png", "b (1)_mask_1.png"]},
    ),
    "a folder per picture": (
        [*("s/1/images/1.png", "s/1/masks/x.png", "s/1/masks/y.png"), *("s/2/images/2.png", "s/2/masks/z.png")],
        {"s_1_1": ["x.png", "y.png"], "s_2_2": ["z.png"]},
    ),
    "masks a level deeper": (["images/a.jpg", "annotations/list.txt", "annotations/trimaps/a.png"], {"a": ["a.png"]}),
    "both named": (["d/images/img_1.png", "d/masks/mask_1.png"], {"d_img_1": ["mask_1.png"]}),
    "before the number": (["volume-1.nii", "segmentation-1.nii"], {"volume-1": ["segmentation-1.nii"]}),
    "cars": (["train/a.jpg", "train_masks/a_mask.png", "test/b.jpg"], {"a": ["a_mask.png"]}),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_pictures_find_their_masks_as_public_sets_name_them(tmp_path: Path, name: str) -> None:
    names, expected = PUBLIC[name]
    found = find_cases(touch(tmp_path, *names))
    assert {case.case: [label.name for label in case.labels] for case in found.cases} == expected


def test_which_of_several_folders_of_masks_is_taken_is_said_and_doubt_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "eyes", "images/1.jpg", "manual1/1.tif", "mask/1_mask.tif")
    source = find_cases(tmp_path / "eyes")
    assert [d.text for d in source.decisions] == ["masks are those of manual1/, not of mask"]
    assert source.notes == ("1 of 3 files belong to no case and are left out, first mask/1_mask.tif",)
    (case,) = find_cases(tmp_path / "eyes", SourceOptions(masks=("mask",))).cases
    assert case.labels[0].parent.name == "mask"
    touch(tmp_path / "two", "a/1.jpg", "b/1.jpg", "masks/1.png")
    with pytest.raises(InputError, match="these masks fit the images of several folders: a, b"):
        find_cases(tmp_path / "two")
    with monkeypatch.context() as bounded:
        bounded.setattr("attunet.sources.layouts.two_folders.MAX_PAIRS", 1)
        with pytest.raises(InputError, match=r"at most 1 pairs of folders are compared, got 2 .* 1 with masks: join"):
            find_cases(tmp_path / "two")
    touch(
        tmp_path / "readers", "images/1.jpg", "images/2.jpg", "labels/one/1.png", "labels/two/1.png", "labels/one/2.png"
    )
    first, second = find_cases(tmp_path / "readers").cases  # classes: where the masks overlap, reading refuses them
    assert (first.label_values, second.label_values) == ((1, 2), (1,))


def test_images_are_in_a_folder_called_labelled(tmp_path: Path) -> None:
    touch(tmp_path, "labelled/1-src.nii", "labelled/1-mask.nii", "unlabelled/2-src.nii")
    assert [(c.case, bool(c.labels)) for c in find_cases(tmp_path).cases] == [("1", True), ("2", False)]


def test_objects_in_files_of_their_own_are_a_decision(tmp_path: Path) -> None:
    files = [
        name for case in "ab" for name in (f"images/{case}.png", f"masks/{case}_mask_1.png", f"masks/{case}_mask_2.png")
    ]
    found = find_cases(touch(tmp_path, *files))
    assert [(len(case.labels), case.label_values) for case in found.cases] == [(2, ()), (2, ())]
    assert [(d.rule, d.text) for d in found.decisions] == [
        ("mask-files", "mask files of a case are objects of one mask: a has 2")
    ]
