"""Pixels that a picture's header announces and its file lacks: Pillow leaves them black, grey or as the background."""

import zlib
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attunet.errors import InputError
from attunet.io.pictures.opening import BLOCK, LOSSY, TILE_SIDES, pillow
from attunet.io.refusal import AGAIN

if TYPE_CHECKING:
    from PIL.Image import Image

# Tags of TIFF
WIDTH, ROWS, BITS, SAMPLES, ROWS_PER_STRIP, PLANAR, SEPARATE = 256, 257, 258, 277, 278, 284, 2
STRIPS, TILES = (273, 279), (324, 325)  # where they are, and their bytes
PADDING = 4  # bytes that a strip may have behind its rows
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the colour type of PNG
# First column and row of the passes of an interlaced PNG, and the steps between columns and rows
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
GREY = 128  # of a block of JPEG without data
FIRST_SCAN, JPEG_END = 0xDA, b"\xff\xd9"
# More data for a JPEG, also behind each of the marks from which a decoder may go on
MORE_DATA = b"".join(bytes((255, mark, *range(1, 255))) for mark in range(0xD0, 0xD8))[2:]


def load_whole(path: Path, image: "Image") -> None:
    """Decode a page. Raises InputError where its file holds fewer pixels than the header says."""
    if image.format == "TIFF" and _has_other_strips(image):
        raise InputError(f"{path}: its strips or tiles are not those of a page of its size: it is damaged; {AGAIN}")
    if image.format == "GIF" and (frame := image.tile[0][1]) != (0, 0, *image.size):  # type: ignore[attr-defined]
        rule = f"the frame of a GIF must cover its screen of {image.width} × {image.height} pixels, got {frame}"
        raise InputError(f"{path}: {rule}: save it as PNG")
    image.load()
    last = np.asarray(image.crop((max(0, image.width - 2), max(0, image.height - 2), *image.size)))  # interlaced too
    if (image.format == "PNG" and not last.all() and _png_is_short(path.read_bytes())) or (
        image.format in LOSSY and (last == GREY).all() and _jpeg_is_short(path, image)
    ):
        raise InputError(f"{path}: is cut short: it holds fewer pixels than its header says; {AGAIN}")


def _has_other_strips(image: "Image") -> bool:
    """True where a TIFF's strips or tiles are not as many, or without compression not as long, as its size needs."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    width, rows, samples = tags[WIDTH], tags[ROWS], tags.get(SAMPLES, 1)
    planes = samples if tags.get(PLANAR) == SEPARATE else 1
    is_tiled = TILES[0] in tags
    sides = [tags[side] for side in TILE_SIDES] if is_tiled else [width, min(tags.get(ROWS_PER_STRIP, rows), rows)]
    number = -(-width // sides[0]) * -(-rows // sides[1]) * planes
    places, lengths = (np.atleast_1d(tags.get(tag, 0)) for tag in (TILES if is_tiled else STRIPS))
    if len(places) != number:
        return True
    line = -(-sides[0] * int(np.atleast_1d(tags.get(BITS, 1))[0]) * samples // planes // 8)
    full = line * sides[1] * number
    least = full if is_tiled else line * rows * planes  # the last strip may have fewer rows
    present = int(lengths.sum())  # 0 where a program left it out
    return image.info.get("compression") == "raw" and present > 0 and not least <= present <= full + PADDING * number


def _png_is_short(content: bytes) -> bool:
    width, rows = (int.from_bytes(content[at : at + 4]) for at in (16, 20))
    bits, is_interlaced = content[24] * CHANNELS[content[25]], content[28]
    needed = 0
    for first_column, first_row, column_step, row_step in PASSES if is_interlaced else ((0, 0, 1, 1),):
        columns, lines = -(-(width - first_column) // column_step), -(-(rows - first_row) // row_step)
        needed += lines * (1 + -(-columns * bits // 8)) if columns > 0 else 0
    inflate, at = zlib.decompressobj(), 8
    while at < len(content) and needed > 0:
        length = int.from_bytes(content[at : at + 4])
        data = content[at + 8 : at + 8 + length] if content[at + 4 : at + 8] == b"IDAT" else b""
        while data and needed > 0 and not inflate.eof:
            needed -= len(inflate.decompress(data, BLOCK))
            data = inflate.unconsumed_tail
        at += 12 + length
    return needed > 0


def _jpeg_is_short(path: Path, image: "Image") -> bool:
    """Decode again with more data behind the last scan: it comes into the picture where pixels are missing."""
    content, at = path.read_bytes(), 2
    while content[at + 1] != FIRST_SCAN:
        at += 1 if content[at + 1] == 255 else 2 + int.from_bytes(content[at + 2 : at + 4])
    end = content.index(JPEG_END, at)
    with pillow(path).open(BytesIO(content[:end] + MORE_DATA + content[end:]), formats=("JPEG",)) as again:
        return not np.array_equal(np.asarray(again), np.asarray(image))
