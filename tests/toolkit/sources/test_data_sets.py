"""The data sets of the field in small, with the files and names that their archives have:
each goes in without an option.
"""

import gzip
import io
import itertools
import json
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from attunet.classes import Classes
from attunet.config import DataConfig
from attunet.errors import InputError
from attunet.preparation.prepare import prepare
from attunet.sources.case_files import SourceOptions
from attunet.sources.find_cases import find_cases
from attunet.sources.inputs import find_inputs
from attunet.store import Store

sitk = pytest.importorskip("SimpleITK")
Image = pytest.importorskip("PIL.Image")

Truth = dict[str, np.ndarray]  # labels by case


@dataclass
class Made:
    """A data set on disk. truth: class indices by case; classes: their names, where they are told."""

    truth: Truth
    patients: int
    channels: int = 1
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    test: int = 0


def scans(made: SimpleNamespace, root: Path, names: Callable[[int], tuple[str, ...]], number: int = 3) -> Truth:
    """Images and labels of `number` cases; `names(i)` is the case's name, its images and its mask."""
    truth = {}
    for i in range(number):
        case, *images, mask = names(i)
        image, truth[case] = made.body(i)
        for name in images:
            made.save_nifti(root / name, image)
        made.save_nifti(root / mask, truth[case])
    return truth


def brats_2020(made: SimpleNamespace, root: Path, _: object) -> Made:
    top = "MICCAI_BraTS2020_TrainingData"

    def names(i: int) -> tuple[str, ...]:
        case = f"BraTS20_Training_{i + 1:03d}"
        return case, *(f"{top}/{case}/{case}_{part}.nii.gz" for part in ("flair", "t1", "t1ce", "t2", "seg"))

    truth = scans(made, root, names)
    (root / top / "name_mapping.csv").write_text("Grade,BraTS_2020_subject_ID\n")
    (root / top / "survival_info.csv").write_text("Brats20ID,Age\n")
    return Made(truth, 3, channels=4, names=("flair", "t1", "t1ce", "t2"))


def brats_2023(made: SimpleNamespace, root: Path, _: object) -> Made:
    def names(i: int) -> tuple[str, ...]:
        case = f"BraTS-GLI-{i:05d}-000"
        return case, *(f"{case}/{case}-{part}.nii.gz" for part in ("t1c", "t1n", "t2f", "t2w", "seg"))

    return Made(scans(made, root, names), 3, channels=4, names=("t1c", "t1n", "t2f", "t2w"))


def kits_19(made: SimpleNamespace, root: Path, _: object) -> Made:
    def names(i: int) -> tuple[str, ...]:
        case = f"case_{i:05d}"
        return case, f"data/{case}/imaging.nii.gz", f"data/{case}/segmentation.nii.gz"

    truth = scans(made, root, names)
    (root / "data/kits.json").write_text('[{"case_id": "case_00000"}]')
    return Made(truth, 3)


def kits_23(made: SimpleNamespace, root: Path, _: object) -> Made:
    kits_19(made, root, None)
    for case in sorted((root / "data").glob("case_*")):
        labels = np.asarray(nib.load(case / "segmentation.nii.gz").dataobj)
        for kind, value in (("kidney", 1), ("tumor", 2)):
            for annotation in (1, 2):
                made.save_nifti(
                    case / f"instances/{kind}_instance-1_annotation-{annotation}.nii.gz",
                    (labels == value).astype(np.uint8),
                )
    (root / "dataset").mkdir()
    (root / "data").rename(root / "dataset/data")
    return Made({f"case_{i:05d}": made.body(i)[1] for i in range(3)}, 3)


def total_segmentator(made: SimpleNamespace, root: Path, _: object) -> Made:
    truth = {}
    for i in range(3):
        image, labels = made.body(i)
        made.save_nifti(root / f"s{i:04d}/ct.nii.gz", image)
        for value, organ in ((1, "kidney_left"), (2, "spleen"), (9, "rib_left_1"), (9, "rib_left_2")):
            made.save_nifti(root / f"s{i:04d}/segmentations/{organ}.nii.gz", (labels == value).astype(np.uint8))
        truth[f"s{i:04d}"] = np.array([0, 1, 4])[labels]
    (root / "meta.csv").write_text("image_id;age\n")
    return Made(truth, 3, classes=("kidney_left", "rib_left_1", "rib_left_2", "spleen"))


def acdc(made: SimpleNamespace, root: Path, _: object) -> Made:
    truth = {}
    for part, numbers in (("training", (1, 2)), ("testing", (101,))):
        for patient in numbers:
            here = root / f"{part}/patient{patient:03d}"
            frames = {f: made.body(10 * patient + f) for f in (1, 12)}
            made.save_nifti(here / f"patient{patient:03d}_4d.nii.gz", np.stack([a for a, _ in frames.values()], -1))
            for frame, (image, labels) in frames.items():
                made.save_nifti(here / f"patient{patient:03d}_frame{frame:02d}.nii.gz", image)
                made.save_nifti(here / f"patient{patient:03d}_frame{frame:02d}_gt.nii.gz", labels)
                truth[f"{part}_patient{patient:03d}_patient{patient:03d}_frame{frame:02d}"] = labels
            (here / "Info.cfg").write_text("ED: 1\nES: 12\n")
            (here / "MANDATORY_CITATION.md").write_text("cite")
    return Made(truth, 3, test=1)


def btcv(made: SimpleNamespace, root: Path, _: object) -> Made:
    def names(i: int) -> tuple[str, ...]:
        top, number = "RawData/Training", f"{i + 1:04d}"
        return f"RawData_Training_img{number}", f"{top}/img/img{number}.nii.gz", f"{top}/label/label{number}.nii.gz"

    truth = scans(made, root, names)
    made.save_nifti(root / "RawData/Testing/img/img0061.nii.gz", made.body(9)[0])
    return Made(truth, 3)


def lits_mirror(made: SimpleNamespace, root: Path, _: object) -> Made:
    def names(i: int) -> tuple[str, ...]:
        return f"volume-{i}", f"volume_pt{i // 2 + 1}/volume-{i}.nii", f"segmentations/segmentation-{i}.nii"

    return Made(scans(made, root, names), 3)


def lits(made: SimpleNamespace, root: Path, _: object) -> Made:
    def names(i: int) -> tuple[str, ...]:
        top = f"Training Batch {1 + i // 2}"
        return f"{top}_volume-{i}", f"{top}/volume-{i}.nii", f"{top}/segmentation-{i}.nii"

    return Made(scans(made, root, names), 3)


def promise_12(made: SimpleNamespace, root: Path, _: object) -> Made:
    truth = {}
    for i in range(3):
        image, labels = made.body(i)
        for name, array in ((f"Case{i:02d}", image), (f"Case{i:02d}_segmentation", labels)):
            (root / "TrainingData_Part1").mkdir(parents=True, exist_ok=True)
            written = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
            written.SetSpacing((0.6, 0.6, 3.6))
            sitk.WriteImage(written, str(root / f"TrainingData_Part1/{name}.mhd"))
        truth[f"TrainingData_Part1_Case{i:02d}"] = labels
    return Made(truth, 3)


def amos(made: SimpleNamespace, root: Path, _: object) -> Made:
    truth, listed = {}, {"training": [], "validation": [], "test": []}
    for part, key, numbers in (("Tr", "training", (1, 4)), ("Va", "validation", (8,)), ("Ts", "test", (9,))):
        for number in numbers:
            image, labels = made.body(number)
            name = f"amos_{number:04d}.nii.gz"
            made.save_nifti(root / f"amos22/images{part}/{name}", image)
            row = {"image": f"./images{part}/{name}"}
            if part != "Ts":
                made.save_nifti(root / f"amos22/labels{part}/{name}", labels)
                truth[f"amos_{number:04d}"] = labels
                row["label"] = f"./labels{part}/{name}"
            listed[key].append(row)
    names = {"0": "background", "1": "spleen", "2": "right kidney"}
    (root / "amos22/dataset.json").write_text(json.dumps({"name": "AMOS", "labels": names, **listed}))
    return Made(truth, 3, classes=("spleen", "right kidney"))


def mm_whs(made: SimpleNamespace, root: Path, _: object) -> Made:
    def names(i: int) -> tuple[str, ...]:
        part = ("ct_train", "mr_train")[i % 2]
        stem = f"{part}_{1001 + i}"
        return f"{part}_{stem}_image", f"{part}/{stem}_image.nii.gz", f"{part}/{stem}_label.nii.gz"

    truth = scans(made, root, names, 4)
    made.save_nifti(root / "ct_test/ct_test_2001_image.nii.gz", made.body(9)[0])
    return Made(truth, 4)


def isles_22(made: SimpleNamespace, root: Path, _: object, ending: str = "msk") -> Made:
    truth = {}
    for i in range(3):
        image, labels = made.body(i)
        case, folder = f"sub-strokecase{i + 1:04d}", f"sub-strokecase{i + 1:04d}/ses-0001"
        for sequence in ("adc", "dwi"):
            made.save_nifti(root / f"ISLES-2022/{folder}/dwi/{case}_ses-0001_{sequence}.nii.gz", image)
        made.save_nifti(root / f"ISLES-2022/{folder}/anat/{case}_ses-0001_FLAIR.nii.gz", made.body(i, (30, 28, 6))[0])
        made.save_nifti(root / f"ISLES-2022/derivatives/{folder}/{case}_ses-0001_{ending}.nii.gz", labels)
        truth[f"{case}_ses-0001"] = labels
    (root / "ISLES-2022/participants.tsv").write_text("participant_id\n")
    (root / "ISLES-2022/dataset_description.json").write_text('{"Name": "ISLES"}')
    return Made(truth, 3, channels=2, names=("adc", "dwi"))


def atlas(made: SimpleNamespace, root: Path, _: object) -> Made:
    def names(i: int) -> tuple[str, ...]:
        subject = f"sub-r001s{i + 1:03d}"
        stem = f"Training/R001/{subject}/ses-1/anat/{subject}_ses-1_space-MNI152NLin2009aSym"
        return f"{subject}_ses-1", f"{stem}_T1w.nii.gz", f"{stem}_label-L_desc-T1lesion_mask.nii.gz"

    truth = scans(made, root, names)
    hidden = "Testing/R040/sub-r040s001/ses-1/anat/sub-r040s001_ses-1_space-MNI152NLin2009aSym_T1w.nii.gz"
    made.save_nifti(root / hidden, made.body(9)[0])
    return Made(truth, 3)


WriteSeries = Callable[..., list[Path]]


def series(made: SimpleNamespace, root: Path, write: WriteSeries, case: str, scan: str, mask: str) -> Made:
    """DICOM series with a mask; the names of cases, folders and masks have a place for the case's number."""
    truth = {}
    for i in range(1, 4):
        image, labels = made.body(i)
        write(root / scan.format(i), image, made.affine_of())
        made.save_nifti(root / mask.format(i), labels)
        truth[case.format(i)] = labels
    return Made(truth, 3)


def pancreas_ct(made: SimpleNamespace, root: Path, write: WriteSeries) -> Made:
    scan = "Pancreas-CT/PANCREAS_{:04d}/11-24-2015-PANCREAS0001-Pancreas-18957/Pancreas-99667"
    mask = "TCIA_pancreas_labels-02-05-2017/label{:04d}.nii.gz"
    return series(made, root, write, "PANCREAS_{:04d}", scan, mask)


def series_with_a_mask(made: SimpleNamespace, root: Path, write: WriteSeries) -> Made:
    return series(made, root, write, "patient{}", "patient{}/CT", "patient{}/mask.nii.gz")


def slices_beside_their_mask(made: SimpleNamespace, root: Path, write: WriteSeries) -> Made:
    return series(made, root, write, "patient{}", "patient{}", "patient{}/label.nii.gz")


def a_folder_for_each_patient(made: SimpleNamespace, root: Path, _: object) -> Made:
    return Made(scans(made, root, lambda i: (f"p{i}", f"p{i}/image.nii.gz", f"p{i}/label.nii.gz")), 3)


def pictures(made: SimpleNamespace, root: Path, names: Callable[[int], tuple[str, str, str]], number: int = 3) -> Truth:
    """Colour pictures and their masks; `names(i)` is the case's name, its picture and its mask."""
    truth = {}
    for i in range(number):
        image, labels = made.plane(i)
        case, picture, mask = names(i)
        made.save_picture(root / picture, np.repeat(image[:, :, None], 3, axis=2))
        made.save_picture(root / mask, (255 * (labels > 0)).astype(np.uint8))
        truth[case] = (labels > 0).T[:, :, None].astype(np.uint8)
    return truth


def ph2(made: SimpleNamespace, root: Path, _: object) -> Made:
    top = "PH2Dataset/PH2 Dataset images"

    def names(i: int) -> tuple[str, str, str]:
        case = f"IMD{i + 2:03d}"
        stem = f"{top}/{case}/{case}"
        return case, f"{stem}_Dermoscopic_Image/{case}.bmp", f"{stem}_lesion/{case}_lesion.bmp"

    truth = pictures(made, root, names)
    made.save_picture(root / f"{top}/IMD002/IMD002_roi/IMD002_R1_Label4.bmp", np.zeros((40, 48), np.uint8))
    (root / "PH2Dataset/PH2_dataset.txt").write_text("Name\n")
    return Made(truth, 3, channels=3)


def stare(made: SimpleNamespace, root: Path, _: object) -> Made:
    truth = {}
    for i in range(1, 4):
        image, labels = made.plane(i)
        colour = np.repeat(image[:, :, None], 3, axis=2)
        for folder, name, array in (
            ("stare-images", f"im{i:04d}.ppm", colour),
            ("labels-ah", f"im{i:04d}.ah.ppm", 255 * (labels > 0)),
            ("labels-vk", f"im{i:04d}.vk.ppm", 255 * (labels == 1)),
        ):
            buffer = io.BytesIO()
            Image.fromarray(array.astype(np.uint8)).save(buffer, "PPM")
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / f"{folder}/{name}.gz").write_bytes(gzip.compress(buffer.getvalue()))
        truth[f"im{i:04d}"] = (labels > 0).T[:, :, None]
    return Made(truth, 3, channels=3)


def montgomery(made: SimpleNamespace, root: Path, _: object) -> Made:
    truth = {}
    for i in range(3):
        image, labels = made.plane(i)
        name = f"MCUCXR_{i + 1:04d}_0"
        made.save_picture(root / f"MontgomerySet/CXR_png/{name}.png", image)
        for value, side in ((1, "left"), (2, "right")):
            made.save_picture(
                root / f"MontgomerySet/ManualMask/{side}Mask/{name}.png", (255 * (labels == value)).astype(np.uint8)
            )
        (root / "MontgomerySet/ClinicalReadings").mkdir(exist_ok=True)
        (root / f"MontgomerySet/ClinicalReadings/{name}.txt").write_text("normal")
        truth[f"MontgomerySet_{name}"] = labels.T[:, :, None]
    return Made(truth, 3, classes=("left", "right"))


def drive(made: SimpleNamespace, root: Path, _: object) -> Made:
    def names(i: int) -> tuple[str, str, str]:
        part, number = ("training", f"{21 + i}") if i < 2 else ("test", f"{i - 1:02d}")
        name = f"{number}_{part}"
        return (
            f"DRIVE_{part}_{name}",
            f"DRIVE/{part}/images/{name}.tif",
            f"DRIVE/{part}/1st_manual/{number}_manual1.gif",
        )

    truth = pictures(made, root, names, 4)
    for path in sorted((root / "DRIVE").glob("*/images/*.tif")):
        field = np.full((40, 48), 255, np.uint8)
        made.save_picture(path.parents[1] / f"mask/{path.stem}_mask.gif", field)
    return Made(truth, 4, channels=3, test=2)


SQUARES = {"liver": [[4, 4], [20, 4], [20, 14], [4, 14]], "spleen": [[30, 20], [40, 20], [40, 34], [30, 34]]}


def annotated(made: SimpleNamespace, root: Path, folder: str = "images") -> Truth:
    """Pictures, and their truth: a rectangle for each class."""
    truth = {}
    for i in range(3):
        image, _ = made.plane(i)
        made.save_picture(root / f"{folder}/p{i}.png", image)
        labels = np.zeros((40, 48), np.uint8)
        for value, corners in enumerate(SQUARES.values(), 1):
            (left, top), _, (right, bottom), _ = corners
            labels[top : bottom + 1, left : right + 1] = value
        truth[f"{folder}_p{i}"] = labels.T[:, :, None]
    return truth


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of alternating runs, of 0 first."""
    flat = mask.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *changes, flat.size]).tolist()
    return lengths if flat[0] == 0 else [0, *lengths]


def coco(made: SimpleNamespace, root: Path, form: str) -> Made:
    truth = annotated(made, root)
    annotations = []
    for i in range(3):
        for number, (name, corners) in enumerate(SQUARES.items(), 1):
            segmentation: object = [[float(v) for corner in corners for v in corner]]
            if form == "masks" and name == "spleen":
                mask = (number == next(iter(truth.values()))[:, :, 0].T).astype(np.uint8)
                segmentation = {"size": [40, 48], "counts": runs(mask.T)}
            row = {"id": 10 * i + number, "image_id": i, "category_id": number, "iscrowd": 0}
            annotations.append({**row, "segmentation": segmentation})
    data = {
        "images": [{"id": i, "file_name": f"p{i}.png", "height": 40, "width": 48} for i in range(3)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(SQUARES, 1)],
        "annotations": annotations,
    }
    (root / "annotations").mkdir()
    (root / "annotations/instances_default.json").write_text(json.dumps(data))
    return Made(truth, 3, classes=tuple(SQUARES))


def cvat_images(made: SimpleNamespace, root: Path, _: object) -> Made:
    truth = annotated(made, root)
    rows = []
    for i in range(3):
        points = ";".join(f"{x}.00,{y}.00" for x, y in SQUARES["liver"])
        shapes = f'<polygon label="liver" occluded="0" points="{points}" z_order="0"></polygon>'
        rle = ", ".join(map(str, runs(np.ones((15, 11), np.uint8))))
        shapes += f'<mask label="spleen" rle="{rle}" left="30" top="20" width="11" height="15" z_order="0"></mask>'
        rows.append(f'<image id="{i}" name="p{i}.png" width="48" height="40">{shapes}</image>')
    labels = "".join(f"<label><name>{name}</name></label>" for name in SQUARES)
    meta = f"<version>1.1</version><meta><job><labels>{labels}</labels></job></meta>"
    text = f"<annotations>{meta}{''.join(rows)}</annotations>"
    (root / "annotations.xml").write_text(f'<?xml version="1.0" encoding="utf-8"?>\n{text}')
    return Made(truth, 3, classes=tuple(SQUARES))


def cvat_masks(made: SimpleNamespace, root: Path, _: object) -> Made:
    truth = annotated(made, root, "JPEGImages")
    colours = np.array([(0, 0, 0), (250, 50, 83), (51, 221, 255)], np.uint8)
    for i, labels in enumerate(truth.values()):
        made.save_picture(root / f"SegmentationClass/p{i}.png", colours[labels[:, :, 0].T])
        made.save_picture(root / f"SegmentationObject/p{i}.png", (255 - colours)[labels[:, :, 0].T])
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nliver:250,50,83::\nspleen:51,221,255::\n",
        encoding="utf-8",
    )
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/default.txt").write_text("p0\np1\np2\n")
    return Made({name.removeprefix("JPEGImages_"): labels for name, labels in truth.items()}, 3, classes=tuple(SQUARES))


def brush(mask: np.ndarray) -> list[int]:
    """Label Studio's run lengths of RGBA pixels: every run a repeated one."""
    values = np.repeat(255 * mask.ravel().astype(int), 4)
    bits = f"{values.size:032b}" + f"{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    changes = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), values.size]
    for start, end in itertools.pairwise(changes):
        while start < end:
            length = min(end - start, 65536)
            bits += "1" + "11" + f"{length - 1:016b}" + f"{values[start]:08b}"
            start += length
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def label_studio(made: SimpleNamespace, root: Path, _: object) -> Made:
    truth = annotated(made, root)
    tasks = []
    for i, labels in enumerate(truth.values()):
        size = {"original_width": 48, "original_height": 40}
        points = [[100 * x / 48, 100 * y / 40] for x, y in SQUARES["liver"]]
        polygon = {**size, "type": "polygonlabels", "value": {"points": points, "polygonlabels": ["liver"]}}
        rle = brush(labels[:, :, 0].T == 2)
        painted = {**size, "type": "brushlabels", "value": {"format": "rle", "rle": rle, "brushlabels": ["spleen"]}}
        tasks.append(
            {"data": {"image": f"/data/upload/1/a1b2c3d4-p{i}.png"}, "annotations": [{"result": [polygon, painted]}]}
        )
    (root / "project-1.json").write_text(json.dumps(tasks))
    return Made(truth, 3, classes=tuple(SQUARES))


def label_studio_png(made: SimpleNamespace, root: Path, _: object) -> Made:
    """The PNG export, whose tasks are numbered on from another project's; a class may be drawn in several strokes."""
    truth = {name.removeprefix("images_"): labels for name, labels in annotated(made, root).items()}
    for i, labels in enumerate(truth.values()):
        for value, name in enumerate(SQUARES, 1):
            drawn = 255 * (value == labels[:, :, 0].T).astype(np.uint8)
            columns = np.arange(drawn.shape[1]) < np.flatnonzero(drawn.any(axis=0)).mean()
            for stroke, part in enumerate((drawn * columns, drawn * ~columns)):
                made.save_picture(root / f"masks/task-{17 + i}-annotation-{40 + i}-by-3-tag-{name}-{stroke}.png", part)
    return Made(truth, 3, classes=tuple(SQUARES))


SETS: dict[str, Callable[[SimpleNamespace, Path, Callable[..., list[Path]]], Made]] = {
    "BraTS 2020": brats_2020,
    "BraTS 2023": brats_2023,
    "KiTS19": kits_19,
    "KiTS23": kits_23,
    "TotalSegmentator": total_segmentator,
    "ACDC": acdc,
    "BTCV": btcv,
    "LiTS": lits,
    "LiTS of a mirror": lits_mirror,
    "PROMISE12": promise_12,
    "AMOS": amos,
    "MM-WHS": mm_whs,
    "ISLES 2022": isles_22,
    "ATLAS": atlas,
    "Pancreas-CT": pancreas_ct,
    "a series with a mask": series_with_a_mask,
    "slices beside their mask": slices_beside_their_mask,
    "a folder for each patient": a_folder_for_each_patient,
    "PH2": ph2,
    "STARE": stare,
    "Montgomery": montgomery,
    "DRIVE": drive,
    "COCO, polygons": lambda made, root, _: coco(made, root, "polygons"),
    "COCO, masks": lambda made, root, _: coco(made, root, "masks"),
    "CVAT for images": cvat_images,
    "CVAT, masks": cvat_masks,
    "Label Studio": label_studio,
    "Label Studio, PNG": label_studio_png,
}


DESCRIBED_ELSEWHERE = ("COCO, masks",)
NUMBER = re.compile(r"(?<![A-Za-z0-9_#/.-])\d+(?= )")  # of cases and files


def check(store: Store, expected: Made) -> None:
    assert sorted(case.name for case in store.cases) == sorted(expected.truth)
    assert store.spec.num_channels == expected.channels
    assert store.channels == expected.names
    assert len({case.patient for case in store.cases}) == expected.patients
    if expected.classes:
        assert store.classes.foreground == expected.classes
    assert len(store.splits.test) == expected.test
    for case, labels in expected.truth.items():
        np.testing.assert_array_equal(store.read_source(case)[1], labels, err_msg=case)


@pytest.mark.parametrize("name", SETS)
def test_a_data_set_goes_in_as_it_is_downloaded(
    name: str, made, tmp_path: Path, write_series, log_lines: list[str]
) -> None:
    expected = SETS[name](made, tmp_path / "s", write_series)
    check(prepare(tmp_path / "s", tmp_path / "store", DataConfig(), folds=2), expected)
    inputs = {file for one in find_inputs(tmp_path / "s", expected.channels) for file in one.files}
    assert inputs
    # Masks are not predicted
    assert inputs.isdisjoint(label for case in find_cases(tmp_path / "s").cases for label in case.labels)
    if name in DESCRIBED_ELSEWHERE:
        return
    page = (Path(__file__).parents[3] / "docs/sources.md").read_text(encoding="utf-8")
    paragraph = page.partition(f"**{name[0].upper()}{name[1:]}**")[2].partition("\n**")[0]
    lines = [line.removeprefix(f"{tmp_path / 's'}: ") for line in log_lines]
    for line in lines:
        if line.startswith(("layout ", "decided: ")) or "left out" in line:
            assert NUMBER.sub("N", line) in paragraph


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
def test_a_data_set_in_a_tar_archive(made: SimpleNamespace, tmp_path: Path, suffix: str) -> None:
    expected = promise_12(made, tmp_path / "s", None)
    with tarfile.open(tmp_path / f"a{suffix}", "w" if suffix == ".tar" else "w:gz") as archive:
        archive.add(tmp_path / "s", "PROMISE12")
    expected.truth = {f"PROMISE12_{case}": labels for case, labels in expected.truth.items()}
    check(prepare(tmp_path / f"a{suffix}", tmp_path / "store", DataConfig(), folds=2), expected)


def test_images_and_masks_of_a_case_are_chosen_by_name(made: SimpleNamespace, tmp_path: Path) -> None:
    brats_2020(made, tmp_path / "s", None)
    source = find_cases(tmp_path / "s", SourceOptions(images=("t1ce", "flair")))
    assert [path.name for path in source.cases[0].images] == [
        "BraTS20_Training_001_t1ce.nii.gz",
        "BraTS20_Training_001_flair.nii.gz",
    ]
    with pytest.raises(InputError, match="--images: no file is named pet; there are flair, t1, t1ce, t2"):
        find_cases(tmp_path / "s", SourceOptions(images=("pet",)))


def test_a_case_that_lacks_a_sequence_is_named(made: SimpleNamespace, tmp_path: Path) -> None:
    brats_2020(made, tmp_path / "s", None)
    next((tmp_path / "s").rglob("*002_t2.nii.gz")).unlink()
    with pytest.raises(InputError, match="BraTS20_Training_002 has no file t2, which other cases have"):
        find_cases(tmp_path / "s")


def test_the_training_list_of_a_dataset_json_is_obeyed(made: SimpleNamespace, tmp_path: Path) -> None:
    scans(made, tmp_path / "s", lambda i: (f"c{i}", f"imagesTr/c{i}.nii.gz", f"labelsTr/c{i}.nii.gz"))
    rows = [{"image": f"./imagesTr/c{i}.nii.gz", "label": f"./labelsTr/c{i}.nii.gz"} for i in (0, 2)]
    for listed in (rows, [row["image"] for row in rows]):
        text = {"labels": {"0": "background", "1": "a", "2": "b"}, "training": listed}
        (tmp_path / "s/dataset.json").write_text(json.dumps(text))
        source = find_cases(tmp_path / "s")
        assert [case.case for case in source.cases] == ["c0", "c2"]
        assert source.notes == ("1 of 3 cases are not in the training list of dataset.json and are left out: c1",)


def test_the_test_part_can_be_mixed_with_the_rest(made: SimpleNamespace, tmp_path: Path) -> None:
    drive(made, tmp_path / "s", None)
    mixed = SourceOptions(choices={"published-split": "mix"})
    assert prepare(tmp_path / "s", tmp_path / "store", DataConfig(), options=mixed, folds=2).splits.test == ()


def test_masks_numbered_without_leading_zeros_are_paired_by_number(made: SimpleNamespace, tmp_path: Path) -> None:
    for i in (1, 2, 10):
        image, labels = made.plane(i)
        made.save_picture(tmp_path / f"s/images/{i}.png", image)
        made.save_picture(tmp_path / f"s/masks/mask_{i:03d}.png", (255 * (labels > 0)).astype(np.uint8))
    source = find_cases(tmp_path / "s")
    assert {case.case: case.labels[0].name for case in source.cases} == {
        "1": "mask_001.png",
        "2": "mask_002.png",
        "10": "mask_010.png",
    }


def test_classes_of_users_go_with_classes_of_files(made: SimpleNamespace, tmp_path: Path) -> None:
    total_segmentator(made, tmp_path / "s", None)
    classes = Classes(("background", "spleen", "kidney_left", "rib_left_1", "rib_left_2"), (0, 1, 2, 3, 4))
    store = prepare(
        tmp_path / "s", tmp_path / "store", DataConfig(), options=SourceOptions(classes=(classes, None)), folds=2
    )
    labels = store.read_source("s0000")[1]
    np.testing.assert_array_equal(labels, np.array([0, 2, 1])[made.body(0)[1]])


def test_masks_of_bids_derivatives_end_in_dseg_too(made: SimpleNamespace, tmp_path: Path) -> None:
    isles_22(made, tmp_path, None, ending="dseg")
    source = find_cases(tmp_path / "ISLES-2022")
    assert [case.labels[0].name for case in source.cases] == [
        f"sub-strokecase{i:04d}_ses-0001_dseg.nii.gz" for i in (1, 2, 3)
    ]
