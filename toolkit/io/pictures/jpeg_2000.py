"""Tiles of JPEG 2000, which OpenJPEG takes memory for and leaves black where the file lacks them."""

import re

START = b"\xff\x4f\xff\x51"  # the markers SOC and SIZ
CODESTREAM = re.compile(rb"(?:\A|jp2c|jp2c.{8})\xff\x4f\xff\x51(.{36})", re.DOTALL)  # alone, or in a box of JP2
TILE_PART = b"\xff\x90"  # the marker SOT


def lacks_tiles(content: bytes) -> bool:
    """Return True for a JPEG 2000 file or code stream without a part of each tile that its header announces."""
    streams = list(CODESTREAM.finditer(content))
    return not streams or any(_num_present(content, one.start(1)) < _num_tiles(one[1]) for one in streams)


def _num_present(content: bytes, at: int) -> int:
    """Count the tiles of a code stream that have a part, from one marker segment to the next; `at` is SIZ's length."""
    present: set[bytes] = set()
    at -= 2
    while content[at : at + 1] == b"\xff":
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        if content[at : at + 2] == TILE_PART:
            present.add(content[at + 4 : at + 6])
            length = int.from_bytes(content[at + 6 : at + 10], "big") - 2
        if length < 2:  # the last part may leave its length open
            break
        at += 2 + length
    return len(present)


def _num_tiles(size: bytes) -> int:
    """Count the tiles by the marker segment SIZ, from its length on."""
    x, y, _, _, tile_x, tile_y, first_x, first_y = (int.from_bytes(size[at : at + 4], "big") for at in range(4, 36, 4))
    if tile_x == 0 or tile_y == 0:
        return 2**16  # more than there may be
    return -(-(x - first_x) // tile_x) * -(-(y - first_y) // tile_y)
