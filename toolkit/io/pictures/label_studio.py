"""Label Studio's annotations (JSON). Its own converter of brushes would bring all of its server."""

import re
from collections.abc import Sequence
from functools import partial
from urllib.parse import unquote

import numpy as np

from attunet.errors import InputError
from attunet.io.pictures.regions import Annotations, Block, PackedMask, Region, Row, numbered
from attunet.io.reading import MAX_VOXELS

WORD_BITS = 8  # of a brush, as Label Studio writes them


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
        name = unquote(picture.rpartition("?d=")[2]).lstrip("/")  # an address, with %20 for a blank
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
    stream = bytes([*packed])
    at, size = 0, height * width * 4  # at: in bits

    def take(count: int) -> int:
        nonlocal at
        start, at = at, at + count
        if at > 8 * len(stream):
            raise InputError("a brush's run lengths are cut short")
        return int.from_bytes(stream[start // 8 : -(-at // 8)], "big") >> -at % 8 & ((1 << count) - 1)

    if size > MAX_VOXELS or take(32) != size:
        raise InputError(f"a brush must have the {size // 4:,} pixels of its picture")
    if (word := take(5) + 1) != WORD_BITS:
        raise InputError(f"a brush's words must have {WORD_BITS} bits, got {word}: export it again")
    sizes = [take(4) + 1 for _ in range(4)]
    values = bytearray()
    while len(values) < size:
        repeated = take(1)
        count = min(size - len(values), 1 + take(sizes[take(2)]))
        values += bytes([take(WORD_BITS)]) * count if repeated else take(WORD_BITS * count).to_bytes(count, "big")
    return np.frombuffer(values, dtype=np.uint8).reshape(height, width, 4)[:, :, 3] > 127, 0, 0
