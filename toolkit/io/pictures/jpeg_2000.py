"""JPEG 2000 by its code stream: tiles that the file lacks and OpenJPEG leaves black, bits of the samples, losses."""

import re
from collections.abc import Iterator

START = b"\xff\x4f\xff\x51"  # the markers SOC and SIZ
SIZE, CODING, TILE_PART = b"\xff\x51", b"\xff\x52", b"\xff\x90"  # the markers SIZ, COD and SOT
CODESTREAM = re.compile(rb"(?:\A|jp2c|jp2c.{8})\xff\x4f\xff\x51(.{36})", re.DOTALL)  # alone, or in a box of JP2


def lacks_tiles(content: bytes) -> bool:
    """Return True for a JPEG 2000 file or code stream without a part of each tile that its header announces."""
    streams = list(CODESTREAM.finditer(content))
    return not streams or any(_num_present(content, stream) < _num_tiles(stream[1]) for stream in streams)


def sample_bits(content: bytes) -> set[int]:
    """Return the numbers of bits of the components' samples."""
    size = _segment(content, SIZE)
    return {(depth & 127) + 1 for depth in size[36 : 36 + 3 * int.from_bytes(size[34:36], "big") : 3]}


def is_irreversible(content: bytes) -> bool:
    """Return True for a wavelet that does not give the samples back exactly."""
    return _segment(content, CODING)[9:10] == b"\0"


def _segments(content: bytes, stream: re.Match[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Yield marker, place and length of each marker segment of a code stream; that of a tile's part has its data."""
    at = stream.start(1) - 2
    while content[at : at + 1] == b"\xff":
        marker, length = content[at : at + 2], int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == TILE_PART:
            length = int.from_bytes(content[at + 6 : at + 10], "big") - 2
        yield marker, at, length
        if length < 2:  # the last part may leave its length open
            break
        at += 2 + length


def _num_present(content: bytes, stream: re.Match[bytes]) -> int:
    """Count the tiles of a code stream that have a part."""
    return len({content[at + 4 : at + 6] for marker, at, _ in _segments(content, stream) if marker == TILE_PART})


def _segment(content: bytes, wanted: bytes) -> bytes:
    """Return a marker segment of the first code stream's main header, after its length; empty if there is none."""
    stream = CODESTREAM.search(content)
    for marker, at, length in _segments(content, stream) if stream else ():
        if marker in (wanted, TILE_PART):
            return content[at + 4 : at + 2 + length] if marker == wanted else b""
    return b""


def _num_tiles(size: bytes) -> int:
    """Count the tiles by the marker segment SIZ, from its length on."""
    x, y, _, _, tile_x, tile_y, first_x, first_y = (int.from_bytes(size[at : at + 4], "big") for at in range(4, 36, 4))
    if tile_x == 0 or tile_y == 0:
        return 2**16  # more than there may be
    return -(-(x - first_x) // tile_x) * -(-(y - first_y) // tile_y)
