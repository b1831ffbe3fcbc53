"""Label Studio's annotations (JSON). Its own converter of brushes would bring all of its server."""

import re
from collections.abc import Sequence
from functools import partial

import numpy as np

from attunet.errors import InputError
from attunet.io.pictures.regions import Annotations, Block, PackedMask, Region, Row, numbered
from attunet.io.reading import MAX_VOXELS


def read_label_studio(tasks: Sequence[Row]) -> Annotations:
    """The first annotation of each task that was not cancelled; pictures without one are left out.

    Polygons have x and y in percent of the sides, brushes the bytes of a packed RGBA picture.
    """
    read = Annotations()
    for task in tasks:
        annotations = [one for one in task["annotations"] if not one.get("was_cancelled")]
        if not annotations:
            continue
        read.repeated += len(annotations) > 1
        picture = next((v for v in task["data"].values() if isinstance(v, str) and re.search(r"\.\w{3,4}$", v)), "")
        results = annotations[0]["result"]
        name = picture.rpartition("?d=")[2].lstrip("/")
        read.add_picture(name, [region for row in results if (region := _region(row)) is not None])
        read.undrawn += sum(_is_drawing(row) for row in results) - len(read.pictures[name])
        for row in results:
            if row.get("original_width") and row.get("original_height"):
                read.add_size(name, int(row["original_width"]), int(row["original_height"]))
    read.values = numbered(sorted({region.name for regions in read.pictures.values() for region in regions}))
    read.empty = len(tasks) - len(read.pictures)
    return read


def _is_drawing(row: Row) -> bool:
    """True for what was drawn on the picture, as against choices and texts about all of it."""
    value = row.get("value")
    return isinstance(value, dict) and not value.keys().isdisjoint(("points", "rle", "x", "vertices"))


def _region(row: Row) -> Region | None:
    if row.get("type") not in ("polygonlabels", "brushlabels"):
        return None
    value = row["value"]
    if row.get("image_rotation"):
        raise InputError("has a region on a picture that was rotated for it: turn it back, and export again")
    if row["type"] == "polygonlabels":
        scale = np.array([row["original_width"], row["original_height"]]) / 100
        return Region(str(value["polygonlabels"][0]), (np.round(np.array(value["points"], dtype=float) * scale, 3),))
    height, width = int(row["original_height"]), int(row["original_width"])
    mask = PackedMask((height, width), partial(_brush, value["rle"], height, width))
    return Region(str(value["brushlabels"][0]), mask=mask)


def _brush(packed: Sequence[int], height: int, width: int) -> Block:
    """The mask of Label Studio's run lengths, which is their alpha: a stream of length, bits of a word, four sizes,
    then runs and literals.
    """
    bits = np.unpackbits(np.frombuffer(bytes([*packed]), dtype=np.uint8))
    at, size = 0, height * width * 4

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
    return pixels.reshape(height, width, 4)[:, :, 3] > 127, 0, 0
