"""Folders that people really have: each is read and what is left out is counted, or one line has the file,
the reason and what to do.
"""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("PIL.Image")

Build = Callable[[SimpleNamespace, Path], None]


def volumes(
    made: SimpleNamespace, root: Path, images: str = "images", labels: str = "labels", affine: np.ndarray | None = None
) -> None:
    for i in range(3):
        for folder, array in zip((images, labels), made.body(i), strict=True):
            made.save_nifti(root / folder / f"c{i}.nii.gz", array, affine)


def with_changes(change: Callable[[int, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]], number: int) -> Build:
    """A builder of volumes and masks after a change of each."""

    def build(made: SimpleNamespace, root: Path) -> None:
        for i in range(number):
            for folder, array in zip(("images", "labels"), change(i, *made.body(i)), strict=True):
                made.save_nifti(root / folder / f"c{i}.nii.gz", array)

    return build


def pictures(made: SimpleNamespace, root: Path) -> None:
    for i in range(3):
        made.save_picture(root / f"images/p{i}.png", made.plane(i)[0])


def all_links_dead(made: SimpleNamespace, root: Path) -> None:
    volumes(made, root)
    for path in list(root.rglob("*.nii.gz")):
        path.unlink()
        path.symlink_to("../.git/annex/objects/a/b")


def one_link_dead(made: SimpleNamespace, root: Path) -> None:
    volumes(made, root)
    (root / "images/c2.nii.gz").unlink()
    (root / "images/c2.nii.gz").symlink_to("elsewhere.nii.gz")


def linked_folder(made: SimpleNamespace, root: Path) -> None:
    volumes(made, root.with_name("away"))
    volumes(made, root)
    for path in (root / "labels").iterdir():
        path.unlink()
    (root / "labels").rmdir()
    (root / "labels").symlink_to(root.with_name("away") / "labels")


def with_list(made: SimpleNamespace, root: Path, classes: dict[str, int], channels: int = 1) -> None:
    for i in range(3):
        image, labels = made.body(i)
        for channel in range(channels):
            made.save_nifti(root / f"imagesTr/c{i}_{channel:04d}.nii.gz", image)
        made.save_nifti(root / f"labelsTr/c{i}.nii.gz", labels)
    (root / "dataset.json").write_text(
        json.dumps({"labels": classes, "training": [f"./imagesTr/c{i}.nii.gz" for i in range(5)]})
    )


def a_class_too_few(made: SimpleNamespace, root: Path) -> None:
    with_list(made, root, {"background": 0, "a": 1})


def a_channel_too_few(made: SimpleNamespace, root: Path) -> None:
    with_list(made, root, {"background": 0, "a": 1, "b": 2}, channels=2)
    (root / "imagesTr/c1_0001.nii.gz").unlink()


def packed_masks(made: SimpleNamespace, root: Path) -> None:
    volumes(made, root)
    with zipfile.ZipFile(root / "labels.zip", "w") as archive:
        for path in (root / "labels").iterdir():
            archive.write(path, path.name)
            path.unlink()


def no_masks(made: SimpleNamespace, root: Path) -> None:
    volumes(made, root, labels="images2")
    for path in (root / "images2").iterdir():
        path.unlink()


def swapped(made: SimpleNamespace, root: Path) -> None:
    volumes(made, root, images="labels", labels="images")


def labelme(made: SimpleNamespace, root: Path) -> None:
    pictures(made, root)
    for i in range(3):
        shape = {"label": "liver", "points": [[5, 5], [20, 5], [20, 20]], "shape_type": "polygon"}
        (root / f"images/p{i}.json").write_text(
            json.dumps({"version": "5.0", "shapes": [shape], "imagePath": f"p{i}.png"})
        )


def yolo(made: SimpleNamespace, root: Path) -> None:
    pictures(made, root)
    (root / "labels").mkdir()
    (root / "labels/p0.txt").write_text("0 0.1 0.1 0.4 0.1 0.4 0.5\n")


def boxes_of_voc(made: SimpleNamespace, root: Path) -> None:
    pictures(made, root)
    (root / "p0.xml").write_text(
        "<annotation><object><name>x</name><bndbox><xmin>1</xmin></bndbox></object></annotation>"
    )


def coco(made: SimpleNamespace, root: Path, change: Callable[[dict[str, list[dict[str, object]]]], object]) -> None:
    pictures(made, root)
    data: dict[str, list[dict[str, object]]] = {
        "images": [{"id": i, "file_name": f"p{i}.png", "width": 48, "height": 40} for i in range(3)],
        "categories": [{"id": 1, "name": "liver"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "segmentation": [[5, 5, 20, 5, 20, 20]]} for i in range(3)
        ],
    }
    change(data)
    (root / "annotations.json").write_text(json.dumps(data))


def coco_boxes(made: SimpleNamespace, root: Path) -> None:
    coco(made, root, lambda data: [row.update(segmentation=[]) for row in data["annotations"]])


def coco_scaled(made: SimpleNamespace, root: Path) -> None:
    coco(made, root, lambda data: [row.update(width=96, height=80) for row in data["images"]])


def coco_runs_of_another_size(made: SimpleNamespace, root: Path) -> None:
    coco(made, root, lambda data: data["annotations"][0].update(segmentation={"size": [10, 10], "counts": [10, 90]}))


def coco_unknown_class(made: SimpleNamespace, root: Path) -> None:
    coco(made, root, lambda data: data["annotations"][0].update(category_id=7))


def cvat_boxes(made: SimpleNamespace, root: Path) -> None:
    pictures(made, root)
    rows = "".join(
        f'<image id="{i}" name="p{i}.png" width="48" height="40"><box label="liver" xtl="1"/></image>' for i in range(3)
    )
    (root / "annotations.xml").write_text(f"<annotations>{rows}</annotations>")


def cvat_scaled(made: SimpleNamespace, root: Path) -> None:
    pictures(made, root)
    shape = '<polygon label="liver" points="5,5;20,5;20,20"/>'
    rows = "".join(f'<image id="{i}" name="p{i}.png" width="24" height="20">{shape}</image>' for i in range(3))
    (root / "annotations.xml").write_text(f"<annotations>{rows}</annotations>")


def observers(made: SimpleNamespace, root: Path) -> None:
    for i in range(3):
        image, labels = made.body(i)
        made.save_nifti(root / f"P{i}/image.nii.gz", image)
        for observer in (1, 2, 3):
            made.save_nifti(root / f"P{i}/task01_seg0{observer}.nii.gz", labels)


def smoothed_colours(made: SimpleNamespace, root: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pictures(made, root)
    for i in range(3):
        mask = image.fromarray(np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], np.uint8)[made.plane(i)[1]])
        mask = mask.resize((96, 80), image.Resampling.BICUBIC).resize((48, 40), image.Resampling.BILINEAR)
        made.save_picture(root / f"masks/p{i}.png", mask)


def hidden(made: SimpleNamespace, root: Path) -> None:
    made.save_nifti(root / "images/.c0.nii.gz", made.body(0)[0])


def contours(made: SimpleNamespace, root: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    header = pydicom.dataset.Dataset()
    header.Modality, header.SOPClassUID, header.SOPInstanceUID = "RTSTRUCT", "1.2.840.10008.5.1.4.1.1.481.3", "1.2.3"
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    (root / "rt").mkdir()
    header.save_as(root / "rt/contours.dcm", enforce_file_format=True)
    made.save_nifti(root / "ct/c0.nii.gz", made.body(0)[0])


def layers(made: SimpleNamespace, root: Path) -> None:
    volumes(made, root)
    labels = made.body(0)[1]
    made.save_nifti(root / "labels/c0.nii.gz", np.stack([labels == 1, labels == 2], -1).astype(np.uint8))


REFUSED: dict[str, tuple[Build, str]] = {
    "links of git-annex": (
        all_links_dead,
        "no files, but 6 links lead to nothing and are left out, first images/c0.nii.gz; fetch",
    ),
    "a dead link": (
        one_link_dead,
        "c2.nii.gz: this mask has no image of its name or number in images/; 1 links lead to nothing",
    ),
    "a linked folder": (
        linked_folder,
        "1 links to folders or out of the folder are left out, first labels; copy what they lead to",
    ),
    "a class too few": (
        a_class_too_few,
        "c0.nii.gz: label values must be among 0, 1, got 2; name it in dataset.json or with --classes",
    ),
    "a channel too few": (
        a_channel_too_few,
        "c1_0000.nii.gz: its channels must be those of other cases (_0000, _0001), got _0000; is a file missing?",
    ),
    "packed masks": (packed_masks, "holds the archive labels.zip, in which nothing is looked for: unpack it"),
    "no masks": (
        no_masks,
        "has 3 files to read, and none of them or of their folders is called a mask; put masks of the images' names",
    ),
    "empty masks": (
        with_changes(lambda _, image, labels: (image, 0 * labels), 3),
        "no mask has: are these the masks? --masks NAME chooses others",
    ),
    "another shape": (
        with_changes(lambda i, image, labels: (image, labels[:-1] if i == 1 else labels), 3),
        "c1.nii.gz: the mask must have the image's shape (24, 20, 4) (c1.nii.gz), got (23, 20, 4): resample",
    ),
    "swapped": (
        swapped,
        "values that change from voxel to voxel, as intensities do: are images and masks swapped? --read",
    ),
    "contours": (
        contours,
        "contours.dcm: is DICOM with contours (RTSTRUCT), which is not read as a mask: save it as NIfTI",
    ),
    "layers": (layers, "c0.nii.gz: must be a 3D mask, got the shape (24, 20, 4, 2): save it as one label map"),
    "tiny voxels": (
        lambda made, root: volumes(made, root, affine=made.affine_of((2e-5, 2e-5, 6e-5))),
        "c0: voxels of 2e-05 mm are outside of 0.001 to 1000: does the header mean another unit?",
    ),
    "observers": (
        observers,
        "voxels lie on other masks of its class, so these are no objects: are they of several observers?",
    ),
    "smoothed colours": (smoothed_colours, "colours that fill no region, as smoothed edges have"),
    "hidden files": (hidden, "the folder has no files, but hidden ones alone, whose names begin with a dot"),
    "labelme": (
        labelme,
        "p0.json: is labelme's annotation of a picture, which is not read: export masks as PNG, or the annotations",
    ),
    "YOLO": (yolo, "p0.txt: has a picture's labels in YOLO's form, which is not read: export"),
    "Pascal VOC": (boxes_of_voc, "p0.xml: has boxes of Pascal VOC and no outlines: export"),
    "COCO, boxes": (
        coco_boxes,
        "annotations.json: has 3 boxes or points and no outlines: annotate with polygons or brushes",
    ),
    "COCO, scaled": (
        coco_scaled,
        "p0.png is annotated on 96 × 80 pixels and has 48 × 40: give the picture that was annotated",
    ),
    "COCO, runs": (
        coco_runs_of_another_size,
        "p0.png: is annotated on 48 × 40 and on 10 × 10 pixels: export the annotations again",
    ),
    "COCO, class": (
        coco_unknown_class,
        "annotations.json: its annotations are damaged: they refer to 7, which they do not define",
    ),
    "CVAT, boxes": (cvat_boxes, "annotations.xml: has 3 boxes or points and no outlines"),
    "CVAT, scaled": (cvat_scaled, "p0.png is annotated on 24 × 20 pixels and has 48 × 40"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_has_the_file_the_reason_and_what_to_do(
    attunet, made: SimpleNamespace, tmp_path: Path, name: str
) -> None:
    build, words = REFUSED[name]
    (tmp_path / "s").mkdir()
    build(made, tmp_path / "s")
    done = attunet("prepare", tmp_path / "s", tmp_path / "store", "--folds", 2)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert words in done.err
    assert not (tmp_path / "store").exists()


def coco_with_more(made: SimpleNamespace, root: Path) -> None:
    def change(data: dict[str, list[dict[str, object]]]) -> None:
        data["images"].append({"id": 9, "file_name": "absent.png", "width": 4, "height": 4})
        data["annotations"].append({"id": 9, "image_id": 0, "category_id": 1, "segmentation": [], "bbox": [1, 1, 2, 2]})

    coco(made, root, change)


def without_voxel_size(made: SimpleNamespace, root: Path) -> None:
    volumes(made, root)
    for path in (root / "images").iterdir():
        image = nib.Nifti1Image(np.asarray(nib.load(path).dataobj), None)
        nib.save(image, root / "plain.nii")
        raw = bytearray((root / "plain.nii").read_bytes())
        raw[80:92] = bytes(12)  # pixdim
        (root / "plain.nii").unlink()
        path.unlink()
        path.with_name(path.name.removesuffix(".gz")).write_bytes(raw)


def listed_without_files(made: SimpleNamespace, root: Path) -> None:
    with_list(made, root, {"background": 0, "a": 1, "b": 2})


def a_typing_error(i: int, image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels[0, 0, 0] = 7 if i == 1 else 0
    return image, labels


COUNTED: dict[str, tuple[Build, tuple[str, ...]]] = {
    "COCO": (
        coco_with_more,
        (
            "1 of 4 annotations of annotations.json have no outline",
            "1 of 4 pictures of annotations.json are not here, first absent.png",
        ),
    ),
    "no voxel size": (without_voxel_size, ("decided: the header gives no voxel size along 3 axes; 1 is taken",)),
    "a typing error": (
        with_changes(a_typing_error, 4),
        ("warning: c1: no other case has label 7 (1 voxels here) [rare-class]",),
    ),
    "255": (
        with_changes(lambda _, image, labels: (image, np.where(labels == 2, 255, labels).astype(np.uint8)), 3),
        ("decided: 255 is a class like the others, not a value to ignore",),
    ),
    "CT and MR": (
        with_changes(lambda i, image, labels: (image if i else (image - 1024).astype(np.int16), labels), 3),
        ("decided: 1 of 3 cases have voxels below -500 as CT has (c0), the others not (c1); all are scaled by zscore",),
    ),
    "dataset.json": (
        listed_without_files,
        ("2 cases of the training list of dataset.json have no files here: c3, c4",),
    ),
}


@pytest.mark.parametrize("name", COUNTED)
def test_what_is_left_out_or_guessed_is_said(attunet, made: SimpleNamespace, tmp_path: Path, name: str) -> None:
    build, said = COUNTED[name]
    build(made, tmp_path / "s")
    done = attunet("prepare", tmp_path / "s", tmp_path / "store", "--folds", 2)
    assert done.code == 0, done.err
    for words in said:
        assert words in done.out


def test_scattered_values_are_taken_where_the_user_says_so(attunet, made: SimpleNamespace, tmp_path: Path) -> None:
    swapped(made, tmp_path / "s")
    done = attunet("prepare", tmp_path / "s", tmp_path / "store", "--folds", 2, "--read", "intensities-as-labels=take")
    assert done.code == 0, done.err


def test_a_picture_for_each_slice_of_a_series_is_its_mask(
    attunet, made: SimpleNamespace, tmp_path: Path, write_series
) -> None:
    for i in (1, 2):
        image, labels = made.body(i)
        write_series(tmp_path / f"s/{i}/scan", image, made.affine_of())
        for z in range(labels.shape[2]):
            made.save_picture(tmp_path / f"s/{i}/masks/{z:03d}.png", 100 * labels[:, :, z].T)
    done = attunet("prepare", tmp_path / "s", tmp_path / "store", "--folds", 2)
    assert done.code == 0, done.err
    assert "2 cases, 8 slices" in done.out
    assert "label 100, label 200" in done.out
