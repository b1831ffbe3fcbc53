"""COCO's annotations (JSON). The run lengths are decoded here: pycocotools would bring compiled code for ten lines."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from attunet.errors import InputError
from attunet.io.pictures.regions import Annotations, Block, PackedMask, Region, Row, block_of_runs, numbered

MAX_SHIFT = 30  # bits of a run's length before its last group: MAX_VOXELS needs 31


def read_coco(data: Row) -> Annotations:
    """Polygons `[x, y, x, y, ...]` and run lengths down the columns, whose `size` is height and width."""
    names = dict(sorted(_by_id("category", [(row["id"], row["name"]) for row in data["categories"]]).items()))
    used = {_whole(row["category_id"]) for row in data["annotations"]}
    kept = [key for key in names if key != 0 or 0 in used]  # some exports have a group of all classes as category 0
    read = Annotations(numbered([names[key] for key in kept]) if 0 in kept else {names[key]: key for key in kept})
    pictures = {
        key: name.replace("\\", "/")  # as Windows separates folders
        for key, name in _by_id("picture", [(row["id"], row["file_name"]) for row in data["images"]]).items()
    }
    for picture in data["images"]:
        name = pictures[_whole(picture["id"])]
        read.add_picture(name, [])
        if picture.get("width") and picture.get("height"):
            read.add_size(name, _whole(picture["width"]), _whole(picture["height"]))
    for row in data["annotations"]:
        name, segmentation = pictures[_whole(row["image_id"])], row.get("segmentation")
        if not segmentation:
            read.undrawn += 1
            continue
        if isinstance(segmentation, dict):
            height, width = map(_whole, segmentation["size"])
            read.add_size(name, width, height)
            mask = PackedMask((height, width), partial(_columns, segmentation["counts"], height, width))
            region = Region(names[_whole(row["category_id"])], mask=mask)
        else:
            polygons = tuple(np.reshape(p, (-1, 2)).astype(float) for p in segmentation)
            region = Region(names[_whole(row["category_id"])], polygons)
        read.pictures[name].append(region)
    return read


def _by_id(kind: str, rows: Sequence[tuple[int, str]]) -> dict[int, str]:
    """Names by id. Raises InputError for an id of two rows."""
    names: dict[int, str] = {}
    for key, name in rows:
        if _whole(key) in names:
            raise InputError(f"gives two rows the {kind} id {key}: give each an id of its own")
        names[_whole(key)] = str(name)
    return names


def _whole(number: int | float | str) -> int:
    """An id or a length in pixels, which some programs write as text. Raises InputError instead of rounding it."""
    if isinstance(number, bool) or (isinstance(number, float) and not number.is_integer()):
        raise InputError(f"its ids and sizes must be whole numbers, got {number}: export it again")
    return int(number)


def _columns(counts: str | Sequence[int], height: int, width: int) -> Block:
    """The mask of run lengths down the columns; text holds differences in groups of five bits."""
    if isinstance(counts, str):
        counts = _unpacked(counts, height * width)
    pixels, column = block_of_runs(counts, width, height)
    return pixels.T, 0, column


def _unpacked(text: str, size: int) -> list[int]:
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > MAX_SHIFT or len(counts) > size:
            raise InputError("its run lengths are damaged: they are no groups of COCO's characters, or too many")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise InputError("its run lengths are damaged: the last one is cut short")
    return counts
