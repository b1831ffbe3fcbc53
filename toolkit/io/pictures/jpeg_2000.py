"""JPEG 2000 by its code stream: tiles that the file lacks and OpenJPEG leaves black, bits of the samples, losses."""

import re

START = b"\xff\x4f\xff\x51"  # the markers SOC and SIZ
SIZE, CODING, TILE = b"\xff\x51", b"\xff\x52", b"\xff\x90"  # the markers SIZ, COD and SOT
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


def sample_bits(content: bytes) -> set[int]:
    """Return the numbers of bits of the components' samples."""
    size = _segment(content, SIZE)
    return {(depth & 127) + 1 for depth in size[36 : 36 + 3 * int.from_bytes(size[34:36], "big") : 3]}


def is_irreversible(content: bytes) -> bool:
    """Return True for a wavelet that does not give the samples back exactly."""
    return _segment(content, CODING)[9:10] == b"\0"


def _segment(content: bytes, marker: bytes) -> bytes:
    """Return a marker segment of the first code stream's main header, after its length; empty if there is none."""
    start = CODESTREAM.search(content)
    at = start.start(1) - 2 if start else len(content)  # of the marker SIZ
    while content[at : at + 1] == b"\xff" and content[at : at + 2] != TILE:
        length = max(2, int.from_bytes(content[at + 2 : at + 4], "big"))
        if content[at : at + 2] == marker:
            return content[at + 4 : at + 2 + length]
        at += 2 + length
    return b""


def _num_tiles(size: bytes) -> int:
    """Count the tiles by the marker segment SIZ, from its length on."""
    x, y, _, _, tile_x, tile_y, first_x, first_y = (int.from_bytes(size[at : at + 4], "big") for at in range(4, 36, 4))
    if tile_x == 0 or tile_y == 0:
        return 2**16  # more than there may be
    return -(-(x - first_x) // tile_x) * -(-(y - first_y) // tile_y)
