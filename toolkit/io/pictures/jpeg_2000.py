"""JPEG 2000 by its code stream: tiles that the file lacks and OpenJPEG leaves black, bits of the samples, losses."""

from collections.abc import Collection, Iterator

import numpy as np

START = b"\xff\x4f\xff\x51"  # the markers SOC and SIZ
SIZE, CODING, COMPONENT_CODING = b"\xff\x51", b"\xff\x52", b"\xff\x53"  # the markers SIZ, COD and COC
TILE_PART, DATA, END = b"\xff\x90", b"\xff\x93", b"\xff\xd9"  # the markers SOT, SOD and EOC
WAVELET = {CODING: 13, COMPONENT_CODING: 10}  # the place of its byte behind the marker
MAX_LEVELS = 32  # of the wavelet
MIN_BLOCK = 128  # values, on average, of a code block that takes no byte; programs write 1,024 or more
# The other markers that OpenJPEG knows; behind one that it does not know, it takes any two bytes for the next
OTHERS = {SIZE, *(bytes((255, kind)) for kind in bytes.fromhex("50 55 57 58 59 5c 5d 5e 5f 60 61 63 64 74 75 77 78"))}

Sides = dict[int, tuple[int, int]]  # along x and y, as exponents of 2, by the level of the wavelet


def is_cut_short(content: bytes) -> bool:
    """Return True for a JPEG 2000 file or code stream that lacks tiles, packets or code blocks which its headers
    announce. OpenJPEG makes structures for all of them before it looks for them.
    """
    size, layers = _segment(content, SIZE), 1
    tiles: set[bytes] = set()
    styles: set[tuple[bytes, bytes]] = set()
    for marker, at, length in _segments(content):
        segment = content[at + 4 : at + 2 + length]
        if marker == TILE_PART:
            tiles.add(segment[:2])
        elif marker == CODING:
            layers = max(layers, int.from_bytes(segment[2:4]))
            styles.add((segment[:1], segment[5:]))
        elif marker == COMPONENT_CODING:  # the number of the component comes first
            styles.add((segment[1:2], segment[2:]))
        elif marker not in OTHERS:
            return True
    if len(tiles) < _num_tiles(size):
        return True
    (right, left, *_), (bottom, top, *_) = _sides(size)
    precincts, blocks = (int.from_bytes(size[34:36]) * _count(size, sides) for sides in _smallest(styles))
    values = (right - left) * (bottom - top) * int.from_bytes(size[34:36])
    return layers * precincts > len(content) or blocks > values // MIN_BLOCK + len(content)  # a packet has a byte


def sample_bits(content: bytes) -> set[int]:
    """Return the numbers of bits of the components' samples."""
    return {(depth & 127) + 1 for depth in _depths(content)}


def is_signed(content: bytes) -> bool:
    """Return True for samples with a sign, to which Pillow adds half of their range."""
    return any(depth & 128 for depth in _depths(content))


def is_irreversible(content: bytes) -> bool:
    """Return True for a wavelet, of any tile or component, that does not give the samples back exactly."""
    return any(
        content.startswith(b"\0", at + WAVELET[marker]) for marker, at, _ in _segments(content) if marker in WAVELET
    )


def _depths(content: bytes) -> bytes:
    """Return a byte for each component: its bits less one, and 128 for a sign."""
    size = _segment(content, SIZE)
    return size[36 : 36 + 3 * int.from_bytes(size[34:36], "big") : 3]


def _segments(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield marker, place and length of each marker segment of the headers of the code stream and of its tiles' parts;
    any two bytes where a marker should be are taken for one.
    """
    at = _code_stream(content) + 2
    end = 0  # of the tile's part
    while at < len(content) and (marker := content[at : at + 2]) != END:
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == DATA:
            at = max(at + 2, end)
            continue
        yield marker, at, length
        if length < 2:
            break
        if marker == TILE_PART:  # the last one may leave its length open
            end = at + (int.from_bytes(content[at + 6 : at + 10], "big") or len(content))
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
    (x, _, tile_x, first_x), (y, _, tile_y, first_y) = _sides(size)
    if tile_x == 0 or tile_y == 0 or x <= first_x or y <= first_y:
        return 2**16 + 1
    return -(-(x - first_x) // tile_x) * -(-(y - first_y) // tile_y)


def _smallest(styles: Collection[tuple[bytes, bytes]]) -> tuple[Sides, Sides]:
    """The smallest precincts and code blocks of all coding styles, for each level of the wavelet."""
    precincts: Sides = {}
    blocks: Sides = {}
    for form, style in styles:
        levels, *block = (int.from_bytes(style[at : at + 1]) for at in range(3))
        levels = min(levels, MAX_LEVELS)
        given = style[5 : 6 + levels] if int.from_bytes(form) & 1 else b""
        for resolution, both in enumerate(given.ljust(levels + 1, b"\xff")):
            level, precinct = levels - resolution, (both & 15, both >> 4)
            inner = [min(side, exponent + 2) for side, exponent in zip(precinct, block, strict=True)]
            for smallest, sides in ((precincts, precinct), (blocks, inner)):
                known = smallest.get(level, (15, 15))
                smallest[level] = min(known[0], sides[0]), min(known[1], sides[1])
    return precincts, blocks


def _count(size: bytes, sides: Sides) -> int:
    """Count the precincts or blocks with these sides in all tiles of a component."""
    count = 0
    for level, exponents in sides.items():
        along = []
        for (last, first, tile, first_tile), exponent in zip(_sides(size), exponents, strict=True):
            edges = -(-np.arange(first_tile, last + tile, tile).clip(first, last) >> level)
            begin, end = edges[:-1], edges[1:]
            along.append(int(np.where(end > begin, -(-end >> exponent) - (begin >> exponent), 0).sum()))
        count += along[0] * along[1]
    return count


def _sides(size: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Along x and along y by SIZ: end and begin of the picture, size and begin of its tiles."""
    numbers = tuple(int.from_bytes(size[at : at + 4], "big") for at in range(2, 34, 4))
    return numbers[::2], numbers[1::2]
