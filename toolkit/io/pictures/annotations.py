"""Masks as annotations of programs for drawing: COCO (JSON), CVAT (XML) and Label Studio (JSON), drawn onto a picture's grid.

The run lengths are decoded here: pycocotools would bring compiled code for ten lines, and Label Studio's own converter all of its server.
"""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TypedDict, cast

import numpy as np

from attunet.errors import InputError
from attunet.io.reading import FILE_ERRORS, MAX_VOXELS

ANNOTATION_SUFFIXES = (".json", ".xml")
MAX_BYTES = 2**28
LABEL_STUDIO_PREFIX = re.compile(r"[0-9a-f]{8}-")


@dataclass(frozen=True, eq=False)
class Region:
    """One annotated region of a picture.

    Args:
        name: its class.
        polygons: corners `(n, 2)` in pixels, x and y.
        mask: pixels `(rows, columns)` of 0 and 1, None for polygons.
        corner: column and row of the mask's first pixel.
    """

    name: str
    polygons: tuple[np.ndarray, ...] = ()
    mask: np.ndarray | None = None
    corner: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Annotations:
    """The annotations of a file: `{class name: label value}`, and the regions of each picture by its name, later ones on top."""

    values: dict[str, int]
    pictures: dict[str, list[Region]] = field(default_factory=dict)

    def regions(self, picture: Path) -> list[Region] | None:
        """The regions of a picture, by the longest common end of its path; None where the file does not name it."""
        plain = picture.as_posix()
        matching = [
            name for name in self.pictures if plain.endswith("/" + name) or name.endswith("/" + picture.name) or name == picture.name
        ]
        if not matching:
            matching = [n for n in self.pictures if LABEL_STUDIO_PREFIX.sub("", PurePosixPath(n).name, count=1) == picture.name]
        return self.pictures[max(matching, key=lambda name: plain.endswith("/" + name))] if matching else None


def read_annotations(path: Path, picture: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Label values `(X, Y, 1)` of one picture.

    Args:
        path: the annotations.
        picture: the picture's file, whose name they use.
        shape: the picture's `(X, Y, 1)`.

    Raises:
        InputError: for a damaged file, one that does not name the picture, or regions of another size.
    """
    annotations = load_annotations(path)
    regions = annotations.regions(picture)
    if regions is None:
        raise InputError(f"{path}: has no annotations of {picture.name}")
    if shape[2] != 1:
        raise InputError(f"{path}: annotations are of single pictures, {picture.name} has {shape[2]} pages")
    labels = np.zeros((shape[1], shape[0]), dtype=np.int32)
    for region in regions:
        _draw(path, labels, region, annotations.values[region.name])
    return np.ascontiguousarray(labels.T)[:, :, None]


def _draw(path: Path, labels: np.ndarray, region: Region, value: int) -> None:
    if region.mask is not None:
        column, row = region.corner
        height, width = region.mask.shape
        if not (0 <= row <= row + height <= labels.shape[0] and 0 <= column <= column + width <= labels.shape[1]):
            raise InputError(f"{path}: a region of {region.mask.shape} pixels leaves its picture of {labels.shape}")
        labels[row : row + height, column : column + width][region.mask != 0] = value
    if region.polygons:
        from PIL import Image, ImageDraw

        canvas = Image.new("1", (labels.shape[1], labels.shape[0]))
        for corners in region.polygons:
            if len(corners) >= 3:
                ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in corners], fill=1, outline=1)
        labels[np.asarray(canvas)] = value


def load_annotations(path: Path) -> Annotations:
    """The annotations of a file, kept in memory for its other pictures. Raises InputError for a file of another kind."""
    status = path.stat()
    return _load(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _load(path: Path, _changed: int, size: int) -> Annotations:
    if size > MAX_BYTES:
        raise InputError(f"{path}: annotations of at most {MAX_BYTES:,} bytes are supported, got {size:,}")
    try:
        if path.suffix.lower() == ".xml":
            return _cvat(path)
        data = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(data, dict) and {"images", "annotations", "categories"} <= set(data):
            return _coco(cast(Coco, data))
        if isinstance(data, list) and data and isinstance(data[0], dict) and "data" in data[0] and "annotations" in data[0]:
            return _label_studio(cast(list[LabelStudioTask], data))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (*FILE_ERRORS, ElementTree.ParseError) as error:
        raise InputError(f"{path}: cannot be read as annotations: {type(error).__name__}") from None
    raise InputError(f"{path}: is neither COCO's, CVAT's nor Label Studio's annotations")


def _numbered(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(names), 1)}


class CocoName(TypedDict):
    """A category."""

    id: int
    name: str


class CocoPicture(TypedDict):
    id: int
    file_name: str


class CocoMask(TypedDict):
    """Run lengths down the columns; `size`: height and width."""

    counts: str | list[int]
    size: list[int]


class CocoRegion(TypedDict, total=False):
    """An annotation; `segmentation`: polygons `[x, y, x, y, ...]` or a mask."""

    image_id: int
    category_id: int
    segmentation: list[list[float]] | CocoMask


class Coco(TypedDict):
    images: list[CocoPicture]
    annotations: list[CocoRegion]
    categories: list[CocoName]


def _coco(data: Coco) -> Annotations:
    categories = sorted(data["categories"], key=lambda row: int(row["id"]))
    names = {int(row["id"]): str(row["name"]) for row in categories}
    used = {int(row["category_id"]) for row in data["annotations"]}
    kept = [key for key in names if key != 0 or 0 in used]  # some exports have a group of all classes as category 0
    values = _numbered([names[key] for key in kept]) if 0 in kept else {names[key]: key for key in kept}
    pictures = {int(row["id"]): row for row in data["images"]}
    result = Annotations(values, {str(row["file_name"]): [] for row in pictures.values()})
    for row in data["annotations"]:
        picture, segmentation = pictures[int(row["image_id"])], row.get("segmentation")
        if not segmentation:
            continue
        if isinstance(segmentation, dict):
            height, width = (int(n) for n in segmentation["size"])
            region = Region(names[int(row["category_id"])], mask=_columns(segmentation["counts"], height, width))
        else:
            region = Region(names[int(row["category_id"])], tuple(np.reshape(p, (-1, 2)).astype(float) for p in segmentation))
        result.pictures[str(picture["file_name"])].append(region)
    return result


def _columns(counts: str | Sequence[int], height: int, width: int) -> np.ndarray:
    """The mask `(height, width)` of COCO's run lengths down the columns; as text they are differences in groups of five bits."""
    if isinstance(counts, str):
        counts = _unpacked(counts)
    return _runs(counts, height * width).reshape(width, height).T


def _unpacked(text: str) -> list[int]:
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def _runs(counts: Sequence[int], size: int) -> np.ndarray:
    """Pixels of alternating runs, of 0 first."""
    if size > MAX_VOXELS or min(counts, default=0) < 0 or sum(counts) > size:
        raise InputError(f"a mask's run lengths must fill {size:,} pixels, got {sum(counts):,}")
    pixels = np.zeros(size, dtype=np.uint8)
    at = 0
    for number, count in enumerate(counts):
        pixels[at : at + int(count)] = number % 2
        at += int(count)
    return pixels


def _cvat(path: Path) -> Annotations:
    contents = path.read_bytes()
    if b"<!DOCTYPE" in contents or b"<!ENTITY" in contents:
        raise InputError("must not define entities")
    root = ElementTree.fromstring(contents)
    if root.tag != "annotations":
        raise InputError("is no export of CVAT (its first element must be annotations)")
    pictures: dict[str, list[Region]] = {}
    for image in root.iter("image"):
        regions = [region for shape in sorted(image, key=_z_order) if (region := _cvat_region(shape)) is not None]
        pictures[image.attrib["name"]] = regions
    named = [name.text or "" for label in root.iter("label") for name in label.iter("name")]
    return Annotations(_numbered([*named, *(region.name for regions in pictures.values() for region in regions)]), pictures)


def _z_order(shape: ElementTree.Element) -> int:
    return int(shape.attrib.get("z_order", 0))


def _cvat_region(shape: ElementTree.Element) -> Region | None:
    name = shape.attrib.get("label", "")
    if shape.tag == "polygon":
        return Region(name, (np.array([[float(v) for v in pair.split(",")] for pair in shape.attrib["points"].split(";")]),))
    if shape.tag == "mask":
        height, width = int(shape.attrib["height"]), int(shape.attrib["width"])
        pixels = _runs([int(n) for n in shape.attrib["rle"].split(",")], height * width)
        return Region(name, mask=pixels.reshape(height, width), corner=(int(shape.attrib["left"]), int(shape.attrib["top"])))
    return None


class LabelStudioValue(TypedDict, total=False):
    """`points`: x and y in percent of the sides; `rle`: bytes of a packed RGBA picture."""

    points: list[list[float]]
    polygonlabels: list[str]
    rle: list[int]
    brushlabels: list[str]


class LabelStudioRegion(TypedDict, total=False):
    type: str
    original_width: int
    original_height: int
    value: LabelStudioValue


class LabelStudioResult(TypedDict):
    result: list[LabelStudioRegion]


class LabelStudioTask(TypedDict):
    data: dict[str, object]
    annotations: list[LabelStudioResult]


def _label_studio(tasks: Sequence[LabelStudioTask]) -> Annotations:
    pictures: dict[str, list[Region]] = {}
    for task in tasks:
        picture = next((v for v in task["data"].values() if isinstance(v, str) and re.search(r"\.\w{3,4}$", v)), "")
        results = task["annotations"][0]["result"] if task["annotations"] else []
        regions = [region for row in results if (region := _label_studio_region(row)) is not None]
        pictures[picture.rpartition("?d=")[2].lstrip("/")] = regions
    return Annotations(_numbered(sorted({region.name for regions in pictures.values() for region in regions})), pictures)


def _label_studio_region(row: LabelStudioRegion) -> Region | None:
    if row.get("type") not in ("polygonlabels", "brushlabels"):
        return None
    value = row["value"]
    if row["type"] == "polygonlabels":
        scale = np.array([row["original_width"], row["original_height"]]) / 100
        return Region(str(value["polygonlabels"][0]), (np.round(np.array(value["points"], dtype=float) * scale, 3),))
    if row.get("type") == "brushlabels":
        height, width = int(row["original_height"]), int(row["original_width"])
        painted = _brush(value["rle"], height * width * 4).reshape(height, width, 4)[:, :, 3]
        return Region(str(value["brushlabels"][0]), mask=(painted > 127).astype(np.uint8))
    return None


def _brush(packed: Sequence[int], size: int) -> np.ndarray:
    """Bytes of Label Studio's run lengths: a bit stream of the length, the word's bits, four sizes, then runs and literals."""
    bits = np.unpackbits(np.array(packed, dtype=np.uint8))
    at = 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        if at > len(bits):
            raise InputError("a brush's run lengths are cut short")
        return int("".join(map(str, bits[at - count : at])), 2)

    if size > MAX_VOXELS or take(32) != size:
        raise InputError(f"a brush must have the {size // 4:,} pixels of its picture")
    word, sizes = take(5) + 1, [take(4) + 1 for _ in range(4)]
    pixels = np.zeros(size, dtype=np.uint8)
    done = 0
    while done < size:
        repeated = take(1)
        end = min(size, done + 1 + take(sizes[take(2)]))
        for index in [done] if repeated else range(done, end):
            pixels[index : end if repeated else index + 1] = take(word)
        done = end
    return pixels
