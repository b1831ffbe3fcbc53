"""Names, dates and identifiers, planted in every text field of the formats that are read."""

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

SECRET, DATE = "ZZTOPSECRET", "19700131"
LOSSY = (".jpg", ".gif", ".webp", ".jp2")
KEPT = (  # without which the series is another one, or makes no DICOM SEG
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "SpecificCharacterSet", "PatientSex"),
)


def plant_in_nifti(path: Path) -> None:
    image = nib.load(path)
    header = image.header
    header["descrip"], header["aux_file"] = f"{SECRET} descrip", f"{SECRET} aux"
    header["db_name"], header["intent_name"] = f"{SECRET} db"[:18], f"{SECRET}"[:16]
    header["data_type"] = SECRET[:10]
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", f"{SECRET} 1970-01-31".encode()))
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, header), path)


def plant_in_dicom(path: Path) -> None:
    """Sets every element of DICOM's dictionary that holds text, a date, an address or an identifier, in the head, in
    sequences and in private tags; but for those without which the series is another one.
    """
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.dcmread(path)
    texts = dicom_texts()
    dataset.update(texts)
    inner, outer = pydicom.Dataset(), pydicom.Dataset()
    inner.update(texts)
    outer.update(texts)
    outer.ReferencedStudySequence = [inner]
    dataset.RequestAttributesSequence = [outer]
    block = dataset.private_block(0x0041, "attunet test", create=True)
    for number, kind in enumerate(("LO", "SH", "LT", "UT", "UN", "OB"), 1):
        block.add_new(number, kind, SECRET.encode() + b" " if kind in ("UN", "OB") else SECRET)
    block.add_new(7, "SQ", [inner])
    dataset.save_as(path)


@cache
def dicom_texts() -> Any:
    """A dataset of some hundred elements, each with a secret or a date."""
    from pydicom import Dataset
    from pydicom.datadict import DicomDictionary

    values = {
        **dict.fromkeys(("PN", "LO", "SH", "ST", "LT", "UT", "UC", "AE", "UR", "CS"), SECRET),
        **{"DA": DATE, "DT": f"{DATE}101010", "TM": "235958", "AS": "077Y", "UI": f"1.2.826.{DATE}"},
    }
    dataset = Dataset()
    for tag, (kind, _, _, _, keyword) in DicomDictionary.items():
        is_shape = tag >> 16 in (0x0000, 0x0002, 0x0004, 0x0028, 0x5200) or keyword in KEPT
        if kind in values and keyword and not is_shape:
            dataset.add_new(tag, kind, values[kind])
    return dataset


def plant_in_picture(image: Any, path: Path) -> None:
    """Saves a picture with secrets in texts, tags, EXIF, XMP and comments; behind the pixels where there are none."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    texts, tags, exif = PngInfo(), ImageFileDirectory_v2(), Image.Exif()
    texts.add_text("Comment", SECRET)
    texts.add_itxt("Author", SECRET)
    exif[0x010E], exif[0x9C9D] = SECRET, SECRET.encode("utf-16-le")  # ImageDescription, XPAuthor
    for tag in (270, 305, 315, 65000):  # description, software, artist, a private one
        tags[tag] = SECRET
    options = {
        ".png": {"pnginfo": texts, "exif": exif},
        ".tif": {"tiffinfo": tags},
        ".jpg": {"exif": exif, "comment": SECRET.encode()},
        ".gif": {"comment": SECRET.encode()},
        ".webp": {"exif": exif, "xmp": SECRET.encode(), "lossless": True},
        ".jp2": {"comment": SECRET.encode()},
        ".bmp": {},
    }
    image.save(path, **options[path.suffix])
    if path.suffix == ".bmp":
        path.write_bytes(path.read_bytes() + SECRET.encode())


def plant_in_itk(array: np.ndarray, path: Path) -> None:
    """Writes `(Z, Y, X)` as NRRD or MHA with secrets in keys, values and comments."""
    import SimpleITK

    volume = SimpleITK.GetImageFromArray(array)
    volume.SetSpacing((2, 2, 8))
    for key in ("Comment", "PatientName", "ITK_notes", "0010|0010", SECRET):
        volume.SetMetaData(key, SECRET)
    SimpleITK.WriteImage(volume, str(path))
    if path.suffix == ".nrrd":
        first, _, rest = path.read_bytes().partition(b"\n")
        path.write_bytes(first + b"\n# " + SECRET.encode() + b"\n" + rest)


def plant_in_mgh(array: np.ndarray, path: Path) -> None:
    """Writes `(Z, Y, X)` as MGH with FreeSurfer's tag of the command line behind the voxels."""
    nib.save(nib.MGHImage(array.T.copy(), np.diag([2, 2, 8, 1])), path)
    opened = gzip.decompress(path.read_bytes()) if path.suffix == ".mgz" else path.read_bytes()
    text = SECRET.encode() + b"\0"
    opened += struct.pack(">iq", 3, len(text)) + text
    path.write_bytes(gzip.compress(opened) if path.suffix == ".mgz" else opened)


def plant_in_analyze(array: np.ndarray, path: Path) -> None:
    """Writes `(Z, Y, X)` as an Analyze pair with secrets in its fields for texts."""
    nib.save(nib.Spm99AnalyzeImage(array.T.copy(), np.diag([2, 2, 8, 1])), path)
    raw, text = bytearray(path.read_bytes()), SECRET.encode()
    for offset, size in (
        (4, 10),
        (14, 18),
        (148, 80),
        (228, 24),
        (263, 10),
        (273, 10),
        (283, 10),
        (293, 10),
        (303, 10),
    ):
        raw[offset : offset + size] = text[:size].ljust(size, b"\0")
    path.write_bytes(raw)


def plant_annotations(folder: Path, kind: str, count: int) -> None:
    """Pictures, and the regions of one class in one file that names those who drew them."""
    from PIL import Image

    folder.mkdir()
    size = {"width": 40, "height": 36}
    for number in range(count):
        noise = np.random.default_rng(number).normal(90, 20, (36, 40))
        plant_in_picture(Image.fromarray(noise.clip(0, 255).astype(np.uint8)), folder / f"p{number}.png")
    person = {"id": 1, "email": f"{SECRET}@example.org", "author": SECRET, "first_name": SECRET, "updated_at": DATE}
    if kind == "coco":
        segmentation = [[5.0, 5.0, 30.0, 5.0, 30.0, 30.0]]
        data = {
            "info": {"contributor": SECRET, "url": SECRET, "date_created": DATE, "description": SECRET},
            "licenses": [{"id": 1, "name": SECRET}],
            "images": [{"id": n, "file_name": f"p{n}.png", **size, **photographed(n)} for n in range(count)],
            "categories": [{"id": 1, "name": "cell", "supercategory": "none", "creator": SECRET}],
            "annotations": [
                {"id": n, "image_id": n, "category_id": 1, "segmentation": segmentation, "annotator": person}
                for n in range(count)
            ],
        }
        (folder / "annotations.json").write_text(json.dumps(data))
    elif kind == "cvat":
        owner = f"<username>{SECRET}</username><email>{SECRET}@example.org</email>"
        task = f"<name>{SECRET}</name><owner>{owner}</owner><assignee>{owner}</assignee><created>{DATE}</created>"
        polygon = f'<polygon label="cell" points="5,5;30,5;30,30" source="{SECRET}"></polygon>'
        rows = "".join(
            f'<image id="{n}" name="p{n}.png" width="40" height="36">{polygon}</image>' for n in range(count)
        )
        labels = "<labels><label><name>cell</name></label></labels>"
        text = f"<version>1.1</version><meta><task>{task}{labels}</task><dumped>{DATE}</dumped></meta>{rows}"
        (folder / "annotations.xml").write_text(f"<!-- {SECRET} --><annotations>{text}</annotations>")
    else:
        value = {"points": [[10, 10], [80, 10], [80, 80]], "polygonlabels": ["cell"]}
        region = {"original_width": 40, "original_height": 36, "type": "polygonlabels", "value": value, "meta": person}
        tasks = [
            {
                "data": {"image": f"/data/upload/1/a1b2c3d4-p{n}.png", "patient": SECRET},
                "created_by": person,
                "annotations": [{"result": [region], "completed_by": person, "created_username": SECRET}],
            }
            for n in range(count)
        ]
        (folder / "project-1.json").write_text(json.dumps(tasks))


def photographed(number: int) -> dict[str, object]:
    return {"photographer": SECRET, "date_captured": DATE, "coco_url": f"https://example.org/{SECRET}/{number}"}


def contents(path: Path) -> Iterator[bytes]:
    """A file's bytes, and what is in it if it is compressed."""
    data = path.read_bytes()
    yield data
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from (archive.read(name) for name in archive.namelist())


def leaks(folder: Path, *secrets: str) -> list[str]:
    """Names of files below `folder` that hold a secret, as UTF-8 or as UTF-16."""
    needles = [needle for secret in secrets for needle in (secret.encode(), secret.encode("utf-16-le"))]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [
        str(path.relative_to(folder))
        for path in files
        if any(needle in data for data in contents(path) for needle in needles)
    ]


def plant_case(folder: Path, name: str, ending: str) -> None:
    """An image and its mask with secrets in every text that their format has; masks of lossy formats are PNG."""
    from PIL import Image

    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in (6, 36, 40)), indexing="ij"))
    labels = ((grid**2).sum(axis=0) < 0.4).astype(np.uint8)
    image = 100 * labels + np.random.default_rng(int(name)).normal(60, 9, labels.shape)
    for kind, array in (("images", image), ("labels", labels)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        path = folder / kind / f"{name}{'.png' if kind == 'labels' and ending in LOSSY else ending}"
        voxels = array.astype(np.uint8 if kind == "labels" else np.int16)
        if ending in VOLUMES:
            VOLUMES[ending](voxels, path)
        else:
            grey = array[3] * (255 if kind == "labels" else 1)
            plant_in_picture(Image.fromarray(grey.clip(0, 255).astype(np.uint8)), path)


VOLUMES = {
    **dict.fromkeys((".nrrd", ".mha"), plant_in_itk),
    **dict.fromkeys((".mgh", ".mgz"), plant_in_mgh),
    ".hdr": plant_in_analyze,
}
