"""Folders of strangers that can be read in two ways: each is refused in one line, and nothing is dropped in silence."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from attunet.config import DataConfig
from attunet.errors import InputError
from attunet.preparation.prepare import prepare
from attunet.sources.case_files import MAX_DEPTH, Source, SourceOptions
from attunet.sources.find_cases import find_cases
from attunet.sources.labels.codings import parse_classes
from attunet.sources.labels.labelled import read_labelled
from attunet.sources.splits import read_splits

LABELS = {"background": 0, "a": 1, "b": 2}
OUTLINE = [2.0, 2.0, 9.0, 2.0, 9.0, 9.0]


def decathlon(made: SimpleNamespace, root: Path, channels: Mapping[str, Sequence[int]]) -> Path:
    for number, (case, numbers) in enumerate(channels.items()):
        image, labels = made.body(number)
        for channel in numbers:
            made.save_nifti(root / f"imagesTr/{case}_{channel:04d}.nii.gz", image)
        made.save_nifti(root / f"labelsTr/{case}.nii.gz", labels)
    (root / "dataset.json").write_text(json.dumps({"labels": LABELS}))
    return root


def touched(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def coco(root: Path, names: Sequence[str], pictures: Sequence[str]) -> Path:
    touched(root, *pictures)
    data = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [{"image_id": n, "category_id": 1, "segmentation": [OUTLINE]} for n in range(len(names))],
        "categories": [{"id": 1, "name": "a"}],
    }
    (root / "annotations.json").write_text(json.dumps(data))
    return root


def cvat(root: Path, names: Sequence[str]) -> Path:
    touched(root, *names)
    shape = '<polygon label="a" points="2,2;9,2;9,9"/>'
    rows = "".join(f'<image name="{name}" width="20" height="20">{shape}</image>' for name in names)
    (root / "annotations.xml").write_text(f"<annotations>{rows}</annotations>")
    return root


def label_studio(root: Path, names: Sequence[str], kind: str = "polygonlabels") -> Path:
    touched(root, *names)
    drawn = {"points": [[2, 2], [9, 2], [9, 9]], "polygonlabels": ["a"]}
    results = [
        {"type": "polygonlabels", "original_width": 20, "original_height": 20, "value": drawn},
        {"type": kind, "original_width": 20, "original_height": 20, "value": drawn},
        {"type": "choices", "original_width": 20, "original_height": 20, "value": {"choices": ["good"]}},
    ]
    tasks = [{"data": {"image": f"/data/{name}"}, "annotations": [{"result": results}]} for name in names]
    (root / "project.json").write_text(json.dumps(tasks))
    return root


def test_a_list_that_pairs_other_files_than_the_names_do_is_refused(made: SimpleNamespace, tmp_path: Path) -> None:
    root = decathlon(made, tmp_path, {"a": [0], "b": [0]})
    rows = [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/b.nii.gz"}]
    (root / "dataset.json").write_text(json.dumps({"labels": LABELS, "training": rows}))
    with pytest.raises(InputError, match=r"dataset\.json: pairs the image './imagesTr/a\.nii\.gz' with the mask"):
        find_cases(root)


def test_lists_of_files_in_folders_are_compared_with_the_folders(tmp_path: Path) -> None:
    pairs = [(f"imagesTr/{place}/{name}.nii.gz", f"labelsTr/{place}/{name}.nii.gz") for place in "xy" for name in "ab"]
    touched(tmp_path, *(path for pair in pairs for path in pair))

    def source(rows: object) -> Source:
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": LABELS, "training": rows}))
        return find_cases(tmp_path)

    assert [case.case for case in source([{"image": f"./{pairs[0][0]}", "label": f"./{pairs[0][1]}"}]).cases] == ["x_a"]
    assert len(source([{"image": image, "label": label} for image, label in pairs]).cases) == 4
    with pytest.raises(InputError, match=r"pairs the image 'imagesTr/x/a\.nii\.gz' with the mask 'labelsTr/y/"):
        source([{"image": pairs[0][0], "label": pairs[2][1]}])


def test_colours_that_two_exports_call_otherwise_are_refused(tmp_path: Path) -> None:
    names = [f"task_{task}/{kind}/{name}.png" for task in (1, 2) for kind in ("images", "masks") for name in "ab"]
    touched(tmp_path, *names)
    lines = ["liver:255,0,0::", "spleen:0,255,0::", "spleen:255,0,0::", "kidney:0,0,255::"]
    first, second = tmp_path / "task_1/labelmap.txt", tmp_path / "task_2/labelmap.txt"
    first.write_text("\n".join(lines[:2]))
    second.write_text("\n".join((lines[3], lines[1])))
    (coding,) = find_cases(tmp_path).codings
    assert set(coding.names) == {"background", "liver", "spleen", "kidney"}
    second.write_text(lines[2])
    with pytest.raises(InputError, match=r"labelmap\.txt: has .* = #.*, another labelmap\.txt of this source has"):
        find_cases(tmp_path)


@pytest.mark.parametrize("second", [[0, 2], [1], [0], [1, 2]])
def test_a_channel_is_never_taken_for_another(made: SimpleNamespace, tmp_path: Path, second: list[int]) -> None:
    root = decathlon(made, tmp_path, {"a": [0, 1], "b": second, "c": [0, 1]})
    with pytest.raises(
        InputError, match=r"b_000\d\.nii\.gz: its channels must be those of other cases \(_0000, _0001\)"
    ):
        find_cases(root)


def test_files_that_are_not_read_are_counted_too(made: SimpleNamespace, tmp_path: Path) -> None:
    decathlon(made, tmp_path, {"a": [0], "b": [0]})
    touched(tmp_path, "imagesTr/c.npy", "labelsTr/c.npy", "imagesTr/c.json", "readme.txt", "LICENSE")
    assert find_cases(tmp_path).notes == ("2 of 6 files belong to no case and are left out, first imagesTr/c.npy",)


def test_voxels_that_no_header_names_are_counted(made: SimpleNamespace, tmp_path: Path) -> None:
    decathlon(made, tmp_path, {"a": [0], "b": [0]})
    touched(tmp_path, "more/c.raw", "more/d.img")
    assert find_cases(tmp_path).notes == ("2 of 6 files belong to no case and are left out, first more/c.raw",)
    touched(tmp_path, "more/d.hdr")
    head = "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = c.raw\n"
    (tmp_path / "more/e.mhd").write_text(head)
    assert find_cases(tmp_path).notes == ("2 of 6 files belong to no case and are left out, first more/d.hdr",)


def test_other_lines_do_not_hide_files_of_no_case(made: SimpleNamespace, tmp_path: Path) -> None:
    decathlon(made, tmp_path, {"a": [0], "b": [0]})
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": LABELS, "training": ["a"]}))
    touched(tmp_path, "more/d.nii.gz", "more/d_seg.nii.gz")
    assert find_cases(tmp_path).notes == (
        "1 of 2 cases are not in the training list of dataset.json and are left out: b",
        "2 of 6 files belong to no case and are left out, first more/d.nii.gz",
    )


@pytest.mark.parametrize(
    "twins",
    [
        ("sub-1/sub-1_T1w.nii", "derivatives/x/sub-1/sub-1_mask.nii", "derivatives/y/sub-1/sub-1_mask.nii"),
        ("x/sub-1/sub-1_T1w.nii", "x/sub-1/sub-1_mask.nii", "y/sub-1/sub-1_T1w.nii"),
        ("case_1/ct.nii", "case_1/seg.nii", "case_1/ct.mha"),
        ("case_1/ct.nii", "case_1/seg.nii", "case_1/case_1_seg.nii"),
    ],
)
def test_a_case_has_no_file_of_a_role_twice(tmp_path: Path, twins: tuple[str, ...]) -> None:
    touched(tmp_path, *twins, *(name.replace("-1", "-2").replace("_1", "_2") for name in twins))
    with pytest.raises(InputError, match=r"there twice, also as .*: leave one out|1 has this file twice, also as "):
        find_cases(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("images/s3.v1.tif", "labels/s0.v0_mask.tif"),
        ("images/volume-2.nii", "labels/m0.nii", "labels/m2.nii"),
        ("images/p2/scan-2.nii", "labels/p0/label-0.nii", "labels/p2/label-2.nii"),
        ("images/é1_0000.png", "labels/é0_liver.mha"),
        ("images/p0_s1_0000.mha", "images/p1_s0_0000.mha", "labels/p0_s1.mha", "labels/p1_s0.mha", "labels/p1_s1.mha"),
        ("images/t01-2.tif", "images/t02-0.tif", "labels/m01-2.tif", "labels/m02-0.tif", "labels/m02-1.tif"),
        ("images/ct_1.mha", "images/ct_2.mha", "labels/m_1.mha", "labels/m_2.mha", "labels/m_3.mha", "labels/x_5.mha"),
        ("part0/images/ct_0.nii", "part0/images/ct_8.nii", "part0/labels/m0.nii", "part0/labels/m2.nii"),
        ("part0/images/000.mha", "part0/labels/mask_002.nii.gz"),
        ("images/ct_case_0100.mha", "labels/case_0098_mask_1.png", "labels/case_0100_mask_1.png"),
    ],
)
def test_a_mask_is_not_that_of_an_image_with_another_number(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"this mask has no image of its name or number|fits no known layout"):
        find_cases(touched(tmp_path, *names))


@pytest.mark.parametrize(
    ("image", "masks"),
    [
        ("brain.nii", ["liver.nii", "spleen.nii"]),
        ("IMG_0231.png", ["mask_1.png", "mask_2.png", "mask_3.png"]),
        ("IMG_0231.png", ["231.png"]),
        ("scan 7.nii", ["liver.nii"]),
    ],
)
def test_a_single_image_has_masks_of_other_names(tmp_path: Path, image: str, masks: list[str]) -> None:
    (case,) = find_cases(touched(tmp_path, f"images/{image}", *(f"masks/{mask}" for mask in masks))).cases
    assert [path.name for path in case.labels] == masks


def test_names_with_two_numbers_at_the_end_are_no_objects_or_classes_by_themselves(tmp_path: Path) -> None:
    masks = [f"liver_{case}_{part}" for case in (1, 2) for part in (1, 2)]
    touched(tmp_path, *(f"p{case}/{name}.nii" for case in range(2) for name in ("ct", *(f"seg/{m}" for m in masks))))
    assert [len(case.labels) for case in find_cases(tmp_path).cases] == [4, 4]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('{"labels": {"background": 0, "a": 1, "a": 2}}', "has the name 'a' twice"),
        ('{"labels": {"background": 0, "a": 1}, "labels": {"background": 0, "b": 1}}', "has the name 'labels' twice"),
        ('{"labels": {"background": 0, "a": 1, "ignore": 1}}', '"ignore" a value of its own, got 1'),
    ],
)
def test_a_dataset_json_has_one_reading(made: SimpleNamespace, tmp_path: Path, text: str, rule: str) -> None:
    (decathlon(made, tmp_path, {"a": [0], "b": [0]}) / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=rf"dataset\.json: .*{rule}"):
        find_cases(tmp_path)


def test_files_of_the_user_have_one_reading(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"schema": 1, "folds": [["a"], ["b"]], "folds": [["b"], ["a"]]}')
    for read in (read_splits, read_labelled):
        with pytest.raises(InputError, match=r"a\.json: cannot be read as JSON: has the name 'folds' twice"):
            read(tmp_path / "a.json")
    with pytest.raises(InputError, match="ignore must have a value of its own, got 1"):
        parse_classes("liver=1,ignore=1")


def test_a_letter_of_a_case_is_no_part_of_its_files_names(tmp_path: Path) -> None:
    touched(tmp_path, *(f"{case}/{name}.nii" for case in "abc" for name in ("ct", "liver_seg")))
    assert [case.images[0].name for case in find_cases(tmp_path).cases] == ["ct.nii"] * 3


def test_a_mask_of_a_case_without_its_image_is_refused(tmp_path: Path) -> None:
    touched(
        tmp_path, *(f"p{case}/{name}.nii" for case in range(3) for name in ("ct", "seg")), "p3/seg.nii", "p3/mr.nii"
    )
    with pytest.raises(InputError, match=r"p3/seg\.nii: p3 has this mask and none of the images ct"):
        find_cases(tmp_path)


def test_an_older_mask_does_not_make_the_newer_an_image(tmp_path: Path) -> None:
    touched(tmp_path, *(f"p{case}/{name}.nii" for case in range(2) for name in ("ct", "seg", "seg_old")))
    assert [(case.images[0].name, case.labels[0].name) for case in find_cases(tmp_path).cases] == [
        ("ct.nii", "seg.nii")
    ] * 2


def test_a_picture_is_annotated_once_and_by_one_name(tmp_path: Path) -> None:
    for build, rule in (
        (lambda root: coco(root, ["1.png", "1.png"], ["1.png"]), "has the picture 1.png twice"),
        (lambda root: cvat(root, ["1.png", "1.png"]), "has the picture 1.png twice"),
        (lambda root: label_studio(root, ["1.png", "1.png"]), "has the picture data/1.png twice"),
        (lambda root: coco(root, ["1.png"], ["a/1.png", "b/1.png"]), "names 1.png, and there are"),
        (lambda root: coco(root, ["x/1.png", "y/1.png"], ["a/1.png"]), "names x/1.png and y/1.png, and 1.png may be"),
        (lambda root: cvat(coco(root, ["1.png"], []), ["1.png"]), r"names 1.png, which annotations\.json names too"),
    ):
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        root.mkdir()
        with pytest.raises(InputError, match=rule):
            find_cases(build(root))


@pytest.mark.parametrize("build", [coco, lambda root, names, _: cvat(root, names)])
def test_a_picture_that_was_lost_is_not_one_of_another_folder(tmp_path: Path, build) -> None:
    pictures = [f"val/{number}.png" for number in range(4)]
    root = build(tmp_path, ["val/0.png", "val/1.png", "train/2.png", "train/3.png"], pictures)
    shutil.rmtree(root / "train", ignore_errors=True)
    touched(root, *pictures)
    source = find_cases(root)
    assert [case.case for case in source.cases] == ["val_0", "val_1"]
    assert any(note.startswith("2 of 4 pictures of annotations.") for note in source.notes)
    assert any(note.endswith("are not here, first train/2.png") for note in source.notes)


def test_pictures_of_folders_by_other_names_are_told(tmp_path: Path) -> None:
    source = find_cases(coco(tmp_path, ["train/0.png", "train/1.png"], ["val/0.png", "val/1.png"]))
    text = "2 of 2 pictures of annotations.json are found by the last part of their names alone, first train/0.png"
    assert source.notes == (f"{text} in the folder val",)
    assert find_cases(coco(tmp_path / "flat", ["train/0.png"], ["0.png"])).notes == ()


def test_a_class_called_background_is_that_of_no_region(tmp_path: Path) -> None:
    path = coco(tmp_path, ["0.png"], ["0.png"]) / "annotations.json"
    data = json.loads(path.read_text())
    data["categories"] = [{"id": 1, "name": "background"}, {"id": 2, "name": "cell"}]
    path.write_text(json.dumps(data))
    (classes,) = find_cases(tmp_path).codings
    assert (classes.names, classes.values) == (("background", "cell"), (0, 2))


def test_regions_without_a_label_of_their_own_are_counted(tmp_path: Path) -> None:
    source = find_cases(label_studio(tmp_path, ["1.png"], kind="polygon"))
    assert source.notes == ("1 of 2 annotations of project.json have no outline and are left out",)


def test_classes_of_mask_files_get_the_values_of_the_user(made: SimpleNamespace, tmp_path: Path) -> None:
    for number in range(3):
        image, labels = made.body(number)
        made.save_nifti(tmp_path / f"s/p{number}/ct.nii", image)
        for value, organ in ((1, "liver"), (2, "spleen")):
            made.save_nifti(tmp_path / f"s/p{number}/segmentations/{organ}.nii", (labels == value).astype(np.uint8))
    options = SourceOptions(classes=parse_classes("spleen=7,liver=5"))
    store = prepare(tmp_path / "s", tmp_path / "store", DataConfig(), options=options, folds=2)
    assert (store.classes.names, store.classes.values) == (("background", "spleen", "liver"), (0, 7, 5))
    np.testing.assert_array_equal(store.read_source("p0")[1], np.array([0, 2, 1])[made.body(0)[1]])
    other = find_cases(tmp_path / "s", SourceOptions(classes=parse_classes("Spleen=1,LIVER=2")))
    assert other.cases[0].label_values == (2, 1)
    assert other.codings[0].names == ("background", "Spleen", "LIVER")
    for text, rule in (
        ("liver=2", "mask files are liver, spleen: name all of them, as they are called, got liver"),
        ("milt=1,hepar=2", "mask files are liver, spleen: name all of them, as they are called, got milt, hepar"),
        ("liver=-1,spleen=2", "be positive"),
    ):
        with pytest.raises(InputError, match=rule):
            find_cases(tmp_path / "s", SourceOptions(classes=parse_classes(text)))


def test_folders_without_end_are_refused(tmp_path: Path) -> None:
    deep = tmp_path / "/".join("d" * (MAX_DEPTH + 2))
    deep.mkdir(parents=True)
    with pytest.raises(InputError, match=f"has folders more than {MAX_DEPTH} deep"):
        find_cases(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may list every folder")
def test_a_folder_that_cannot_be_listed_is_refused(made: SimpleNamespace, tmp_path: Path) -> None:
    decathlon(made, tmp_path, {"a": [0], "b": [0]})
    touched(tmp_path, "more/c.nii.gz").joinpath("more").chmod(0)
    with pytest.raises(InputError, match="more: cannot be listed: Permission denied"):
        find_cases(tmp_path)


def test_a_line_of_numbers_is_looked_at_once(tmp_path: Path) -> None:
    touched(tmp_path, "a.png")
    (tmp_path / "a.txt").write_text("0 " * 2000 + "x\n")  # a pattern that tries all splits of the line never ends
    with pytest.raises(InputError, match="has 1 file to read, and none of them"):
        find_cases(tmp_path)
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.25 1\n")
    with pytest.raises(InputError, match="YOLO's form"):
        find_cases(tmp_path)


def test_images_of_a_part_whose_masks_are_too_many_are_no_channels(made: SimpleNamespace, tmp_path: Path) -> None:
    for number, part in enumerate(("train", "val")):
        for slice_number in range(3):
            image, labels = made.body(10 * number + slice_number)
            made.save_nifti(tmp_path / f"{part}/img/IM{slice_number}.nii.gz", image)
            made.save_nifti(tmp_path / f"{part}/gt/IM{slice_number}_gt.nii.gz", labels)
    assert len(find_cases(tmp_path).cases) == 6
    (tmp_path / "val/img/IM1.nii.gz").unlink()
    with pytest.raises(InputError, match=r"IM1_gt\.nii\.gz: this mask has no image of its name or number in img/"):
        find_cases(tmp_path)


def test_a_series_has_no_two_mask_files_of_its_name(tmp_path: Path) -> None:
    touched(tmp_path, *(f"PATIENT_{n:04d}/study/series/a.dcm" for n in range(3)))
    touched(tmp_path, *(f"labels/label{n:04d}.nii.gz" for n in range(3)))
    assert [case.labels[0].parent.name for case in find_cases(tmp_path).cases] == ["labels"] * 3
    touched(tmp_path, "labels_2/label0001.nii.gz")
    with pytest.raises(
        InputError, match=r"label0001\.nii\.gz: .* there twice, also as .*label0001\.nii\.gz: leave one"
    ):
        find_cases(tmp_path)


def test_a_region_on_a_rotated_picture_is_refused(tmp_path: Path) -> None:
    project = label_studio(tmp_path, ["a.png"]) / "project.json"
    project.write_text(project.read_text().replace('"original_width"', '"image_rotation": 90, "original_width"'))
    with pytest.raises(InputError, match=r"project\.json: has a region on a picture that was rotated"):
        find_cases(tmp_path)


@pytest.mark.parametrize("name", ["l\udcfcng", "x" * 210])
@pytest.mark.parametrize("folder", ["segmentations/", ""])
def test_a_class_or_channel_that_no_model_could_hold_is_refused(
    made: SimpleNamespace, tmp_path: Path, name: str, folder: str
) -> None:
    for number in range(3):
        image, labels = made.body(number)
        case = tmp_path / f"s/p{number}"
        made.save_nifti(case / "ct.nii", image)
        made.save_nifti(case / f"{folder}{name}.nii", (labels == 1).astype(np.uint8) if folder else image + 1)
        made.save_nifti(case / "segmentations/spleen.nii", (labels == 2).astype(np.uint8))
    with pytest.raises(InputError, match=r"(classes|channels): a name must be a text of 1 to 200 characters in UTF-8"):
        find_cases(tmp_path / "s")
