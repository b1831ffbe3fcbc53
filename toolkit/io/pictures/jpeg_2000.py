"""JPEG 2000 by its code stream: tiles that the file lacks and OpenJPEG leaves black, bits of the samples, losses."""

from collections.abc import Iterator

START = b"\xff\x4f\xff\x51"  # the markers SOC and SIZ
SIZE, CODING, TILE_PART = b"\xff\x51", b"\xff\x52", b"\xff\x90"  # the markers SIZ, COD and SOT
END = b"\xff\xd9"  # the marker EOC


def lacks_tiles(content: bytes) -> bool:
    """Return True for a JPEG 2000 file or code stream without a part of each tile that its header announces."""
    present = {content[at + 4 : at + 6] for marker, at, _ in _segments(content) if marker == TILE_PART}
    return len(present) < _num_tiles(_segment(content, SIZE))


def sample_bits(content: bytes) -> set[int]:
    """Return the numbers of bits of the components' samples."""
    size = _segment(content, SIZE)
    return {(depth & 127) + 1 for depth in size[36 : 36 + 3 * int.from_bytes(size[34:36], "big") : 3]}


def is_irreversible(content: bytes) -> bool:
    """Return True for a wavelet that does not give the samples back exactly."""
    return _segment(content, CODING)[9:10] == b"\0"


def _segments(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield marker, place and length of each marker segment of the code stream; that of a tile's part has its data."""
    at = _code_stream(content) + 2
    while content[at : at + 1] == b"\xff" and content[at : at + 2] != END:
        marker, length = content[at : at + 2], int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == TILE_PART:
            length = int.from_bytes(content[at + 6 : at + 10], "big") - 2
        yield marker, at, length
        if length < 2:  # the last part may leave its length open
            break
        at += 2 + length


def _code_stream(content: bytes) -> int:
    """Find the code stream, which is the file or the first box `jp2c` of it; the end where there is none."""
    at = 0
    while not content.startswith(START, at):
        length, kind, head = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8], 8
        if length == 1:  # a longer number follows
            length, head = int.from_bytes(content[at + 8 : at + 16], "big"), 16
        if kind == b"jp2c":
            return at + head if content.startswith(START, at + head) else len(content)
        if length < 8:
            return len(content)
        at += length
    return at


def _segment(content: bytes, wanted: bytes) -> bytes:
    """Return a marker segment of the main header, after its length; empty if there is none."""
    for marker, at, length in _segments(content):
        if marker in (wanted, TILE_PART):
            return content[at + 4 : at + 2 + length] if marker == wanted else b""
    return b""


def _num_tiles(size: bytes) -> int:
    """Count the tiles by the marker segment SIZ; more than there may be where it has none."""
    x, y, _, _, tile_x, tile_y, first_x, first_y = (int.from_bytes(size[at : at + 4], "big") for at in range(2, 34, 4))
    if tile_x == 0 or tile_y == 0:
        return 2**16
    return -(-(x - first_x) // tile_x) * -(-(y - first_y) // tile_y)
