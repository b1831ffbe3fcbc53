"""Tiles of JPEG 2000, which OpenJPEG takes memory for and leaves black where the file lacks them."""

import re

START = b"\xff\x4f\xff\x51"  # the markers SOC and SIZ
CODESTREAM = re.compile(rb"(?:\A|jp2c|jp2c.{8})\xff\x4f\xff\x51(.{36})", re.DOTALL)  # alone, or in a box of JP2
TILE_PART = re.compile(rb"\xff\x90\x00\x0a(..).{6}", re.DOTALL)


def lacks_tiles(content: bytes) -> bool:
    """Return True for a JPEG 2000 file or code stream without a part of each tile that its header announces."""
    announced = [_num_tiles(match[1]) for match in CODESTREAM.finditer(content)]
    return not announced or len(set(TILE_PART.findall(content))) < max(announced)


def _num_tiles(size: bytes) -> int:
    """Count the tiles by the marker segment SIZ, from its length on."""
    x, y, _, _, tile_x, tile_y, first_x, first_y = (int.from_bytes(size[at : at + 4], "big") for at in range(4, 36, 4))
    if tile_x == 0 or tile_y == 0:
        return 2**16  # more than there may be
    return -(-(x - first_x) // tile_x) * -(-(y - first_y) // tile_y)
