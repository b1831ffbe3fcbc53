"""Opening of pictures with Pillow (the extra `images`), and the sizes in their headers, in bounded work."""

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO, FileIO, RawIOBase
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from attunet.errors import InputError
from attunet.io.gzip_file import is_gzipped, open_gzip
from attunet.io.pictures.jpeg_2000 import is_cut_short
from attunet.io.reading import MAX_DEFLATE_RATIO, MAX_VOXELS, QUIET
from attunet.io.refusal import AGAIN, needs

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_FORMATS = ("PNG", "TIFF", "JPEG", "BMP", "GIF", "WEBP", "JPEG2000", "PPM")
GZIPPED_FORMATS = ("PPM",)  # others seek, and a gzip is inflated anew for each step back
LOSSY = ("JPEG", "MPO")
# Modes of Pillow
GREY_MODES = ("1", "L", "I;16", "I;16B", "I;16L", "I", "F")
WITHOUT_ALPHA = {"LA": "L", "La": "L", "PA": "RGB", "RGBA": "RGB", "RGBa": "RGB"}
BYTES_PER_VALUE = 16  # of PPM as text, with its blanks
MIN_READS = 2**18  # that any file may take
BYTES_PER_READ = 64  # above these, a file of N bytes may take N / 64 more
BLOCK = 2**16  # bytes that Pillow reads at once, however little it needs
MIN_BYTES = 2**24  # in longer reads, that any file may take
MAX_TIMES_READ = 16  # the size of a file, in longer reads
TILE_SIDES, WHOLE_TYPES = (322, 323), (3, 4, 16)  # tags of TIFF, and the types that they may have, in BigTIFF 64 bits
MAX_TAGS = 2**16  # of a page; libtiff takes 4,096
SCAN = re.compile(rb"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")  # the head of a scan of JPEG
MAX_SCANS = 50  # of a JPEG: about ten if it is progressive; some bytes of a scan take the time of all pixels


class _BoundedReads(BufferedReader):
    """A picture's file with a bound of reads that grows with its size: Pillow works in Python for every chunk, marker,
    box, tag and page, and a file can have a million of them that hold nothing, or share what they hold.
    """

    def __init__(self, raw: RawIOBase, path: Path, size: int) -> None:
        super().__init__(raw)
        self._path = path
        self._reads, self._bytes = MIN_READS + size // BYTES_PER_READ, MIN_BYTES + MAX_TIMES_READ * size

    def allow(self, reads: int) -> None:
        self._reads += reads

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._reads -= 1
        self._bytes -= max(0, len(data) - BLOCK)
        if self._reads < 0 or self._bytes < 0:
            advice = "save it again, and a stack of thousands of small pages as .nii.gz"
            raise InputError(f"{self._path}: has more chunks, tags or pages than a picture of its size needs; {advice}")
        return data


def pillow(path: Path) -> ModuleType:
    """Pillow's module `Image`. Raises InputError, which names the file, where it is not installed."""
    with needs(path, "pictures need Pillow", "images"):
        from PIL import Image
    return Image


@contextmanager
def opened(path: Path, *, whole: bool = False) -> Iterator[tuple["Image", int]]:
    """A picture and the number of its pages, which is 1 but for a TIFF. If `whole`, the checksums of a gzip and a PNG
    are compared, else the header alone is read. Raises InputError and Pillow's own errors.
    """
    with (
        QUIET,  # of large images, whose size the caller bounds, and odd metadata
        _contents(path, whole) as file,
        pillow(path).open(file, formats=GZIPPED_FORMATS if is_gzipped(path) else IMAGE_FORMATS) as image,
    ):
        if whole and image.format == "PNG":
            pillow(path).open(file, formats=("PNG",)).verify()
            file.seek(0)
        if image.format == "BMP":  # Pillow reads the runs of a compressed one byte by byte
            file.allow(path.stat().st_size)
        if image.format == "JPEG2000":
            file.seek(0)
            if is_cut_short(file.read()):
                raise InputError(f"{path}: is cut short: it lacks tiles or packets that its header announces; {AGAIN}")
        if image.format in LOSSY:
            file.seek(0)
            if (scans := len(SCAN.findall(file.read()))) > MAX_SCANS:
                raise InputError(f"{path}: a JPEG may have at most {MAX_SCANS} scans, got {scans:,}: save it as PNG")
        yield image, _count_pages(path, file) if image.format == "TIFF" else 1


def tiff_tag(image: "Image", tag: int) -> object:
    """A tag of a TIFF's page, of several values the first; None where it is missing, and for another format."""
    value = getattr(image, "tag_v2", {}).get(tag)
    return value[0] if isinstance(value, tuple) else value


def num_values(image: "Image") -> int:
    """The values of a page as its decoder writes them: the tiles of a TIFF may be larger than the page."""
    sides = zip(image.size, (cast(int, tiff_tag(image, tag)) or 1 for tag in TILE_SIDES), strict=True)
    width, height = (-(-side // tile) * tile for side, tile in sides)
    return width * height * len(image.getbands())


def _contents(path: Path, whole: bool) -> _BoundedReads:
    """The open file. Given a path, Pillow 13 maps uncompressed TIFF and garbles it where EXIF swaps the sides."""
    size = path.stat().st_size
    if not is_gzipped(path):
        return _BoundedReads(FileIO(path), path, size)
    if not whole:
        return _BoundedReads(cast(RawIOBase, open_gzip(path)), path, size)
    with opened(path) as (image, _):
        said = BLOCK + BYTES_PER_VALUE * image.width * image.height * len(image.getbands())
    limit = min(said, MAX_VOXELS, size * MAX_DEFLATE_RATIO)
    with open_gzip(path) as file:
        contents = file.read(limit + 1)
    if len(contents) > limit:
        raise InputError(f"{path}: must unpack to at most {limit:,} bytes, by its header and its size")
    return _BoundedReads(cast(RawIOBase, BytesIO(contents)), path, len(contents))


def _count_pages(path: Path, file: _BoundedReads) -> int:
    """The pages of a TIFF, by the chain of its directories; Pillow's `n_frames` reads every tag of every page.

    Raises InputError for sides of tiles that are there twice or of odd types, of which libtiff and Pillow take others.
    """
    file.seek(0)
    head = file.read(16)
    order, is_big = "<" if head[:2] == b"II" else ">", b"+" in head[2:4]
    entry_bytes, count, offset = (20, f"{order}Q", f"{order}Q") if is_big else (12, f"{order}H", f"{order}I")
    (at,) = struct.unpack_from(offset, head, 8 if is_big else 4)
    pages: set[int] = set()
    while at and at not in pages:
        pages.add(at)
        file.seek(at)
        (entries,) = struct.unpack(count, file.read(struct.calcsize(count)))
        tags = struct.iter_unpack(f"{order}HH{entry_bytes - 4}x", file.read(min(entries, MAX_TAGS) * entry_bytes))
        sides = [(tag, kind) for tag, kind in tags if tag in TILE_SIDES]
        if len(sides) > len(dict(sides)) or any(kind not in WHOLE_TYPES for _, kind in sides):
            raise InputError(f"{path}: the sides of its tiles must be there once, as whole numbers: save it again")
        following = file.read(struct.calcsize(offset))
        at = struct.unpack(offset, following)[0] if len(following) == struct.calcsize(offset) else 0
    return len(pages)
