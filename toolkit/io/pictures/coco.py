"""COCO's annotations (JSON). The run lengths are decoded here: pycocotools would bring compiled code for ten lines."""

from collections.abc import Sequence
from functools import partial
from typing import TypedDict

import numpy as np

from attunet.errors import InputError
from attunet.io.pictures.regions import (
    Annotations,
    Block,
    PackedMask,
    Region,
    add_picture,
    add_size,
    block_of_runs,
    numbered,
)

MAX_SHIFT = 30  # bits of a run's length before its last group: MAX_VOXELS needs 31


class Category(TypedDict):
    id: int
    name: str


class Picture(TypedDict, total=False):
    id: int
    file_name: str
    width: int
    height: int


class RunLengths(TypedDict):
    """Run lengths down the columns; `size`: height and width."""

    counts: str | list[int]
    size: list[int]


class AnnotatedRegion(TypedDict, total=False):
    """An annotation; `segmentation`: polygons `[x, y, x, y, ...]` or a mask."""

    image_id: int
    category_id: int
    segmentation: list[list[float]] | RunLengths


class Coco(TypedDict):
    images: list[Picture]
    annotations: list[AnnotatedRegion]
    categories: list[Category]


def read_coco(data: Coco) -> Annotations:
    names = dict(sorted(_by_id("category", [(row["id"], row["name"]) for row in data["categories"]]).items()))
    used = {int(row["category_id"]) for row in data["annotations"]}
    kept = [key for key in names if key != 0 or 0 in used]  # some exports have a group of all classes as category 0
    values = numbered([names[key] for key in kept]) if 0 in kept else {names[key]: key for key in kept}
    pictures = {
        key: name.replace("\\", "/")  # as Windows separates folders
        for key, name in _by_id("picture", [(row["id"], row["file_name"]) for row in data["images"]]).items()
    }
    regions: dict[str, list[Region]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for picture in data["images"]:
        name = pictures[int(picture["id"])]
        add_picture(regions, name, [])
        if picture.get("width") and picture.get("height"):
            add_size(sizes, name, int(picture["width"]), int(picture["height"]))
    undrawn = 0
    for row in data["annotations"]:
        name, segmentation = pictures[int(row["image_id"])], row.get("segmentation")
        if not segmentation:
            undrawn += 1
            continue
        if isinstance(segmentation, dict):
            height, width = (int(n) for n in segmentation["size"])
            add_size(sizes, name, width, height)
            mask = PackedMask((height, width), partial(_columns, segmentation["counts"], height, width))
            region = Region(names[int(row["category_id"])], mask=mask)
        else:
            polygons = tuple(np.reshape(p, (-1, 2)).astype(float) for p in segmentation)
            region = Region(names[int(row["category_id"])], polygons)
        regions[name].append(region)
    return Annotations(values, regions, sizes, undrawn)


def _by_id(kind: str, rows: Sequence[tuple[int, str]]) -> dict[int, str]:
    """Names by id. Raises InputError for an id of two rows."""
    names: dict[int, str] = {}
    for key, name in rows:
        if int(key) in names:
            raise InputError(f"gives two rows the {kind} id {key}: give each an id of its own")
        names[int(key)] = str(name)
    return names


def _columns(counts: str | Sequence[int], height: int, width: int) -> Block:
    """The mask of run lengths down the columns; text holds differences in groups of five bits."""
    if isinstance(counts, str):
        counts = _unpacked(counts)
    pixels, column = block_of_runs(counts, width, height)
    return Block(pixels.T, column=column)


def _unpacked(text: str) -> list[int]:
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > MAX_SHIFT:
            raise InputError("its run lengths are damaged: they are no groups of COCO's characters")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts
