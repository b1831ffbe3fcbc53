"""A picture whose file holds fewer pixels than its header says is refused: none is black because it is missing."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

from attunet.errors import InputError  # noqa: E402
from attunet.io.readers import read_mask, read_volume  # noqa: E402

ROWS = np.repeat(np.arange(1, 65, dtype=np.uint8)[:, None], 64, axis=1)
TAG_WIDTH, TAG_ROWS, TAG_PLACES, TAG_ROWS_PER_STRIP = 256, 257, 273, 278


def changed(content: bytes, tag: int, *, value: int | None = None, count: int | None = None) -> bytes:
    """A TIFF of one page, with the value of a tag, or the number of its values, changed."""
    data = bytearray(content)
    (start,) = struct.unpack_from("<I", data, 4)
    for at in range(start + 2, start + 2 + 12 * data[start], 12):
        number, kind, values = struct.unpack_from("<HHI", data, at)
        if number == tag:
            struct.pack_into("<I", data, at + 4, count or values)
            if value is not None:
                struct.pack_into("<H" if kind == 3 else "<I", data, at + 8, value)
    return bytes(data)


DAMAGE = [
    (TAG_ROWS, {"value": 128}),
    (TAG_ROWS, {"value": 192}),
    (TAG_ROWS, {"value": 32}),
    (TAG_ROWS_PER_STRIP, {"value": 4}),
    (TAG_ROWS_PER_STRIP, {"value": 24}),
    (TAG_PLACES, {"count": 4}),
    (TAG_WIDTH, {"value": 96}),
]


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "packbits"])
@pytest.mark.parametrize(("tag", "change"), DAMAGE, ids=str)
def test_strips_of_a_tiff_cover_its_page(tmp_path: Path, compression: str, tag: int, change: dict[str, int]) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(ROWS).save(path, compression=compression, tiffinfo={TAG_ROWS_PER_STRIP: 8})
    assert (read_mask(path).data[0, :, :, 0] == ROWS.T).all()
    path.write_bytes(changed(path.read_bytes(), tag, **change))
    with pytest.raises(InputError, match=r"its strips or tiles are not those of a page of its size|is damaged or cut"):
        read_mask(path)


def page(tags: list[tuple[int, list[int]]], pixels: bytes) -> bytes:
    """A TIFF without compression. A place of pixels counts from their beginning."""
    rows, begin, more = b"", 8 + 2 + 12 * len(tags) + 4, b""
    data = begin + sum(4 * len(values) for _, values in tags if len(values) > 1)
    for tag, values in tags:
        values = [value + data * (tag in (273, 324)) for value in values]
        packed = struct.pack(f"<{len(values)}I", *values)
        rows += struct.pack("<HHI", tag, 4, len(values))
        rows += packed if len(values) == 1 else struct.pack("<I", begin + len(more))
        more += packed if len(values) > 1 else b""
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + rows + bytes(4) + more + pixels


GREY, COLOUR = [(258, [8]), (259, [1]), (262, [1]), (277, [1])], [(258, [8]), (259, [1]), (262, [2]), (277, [3])]
SIZE = [(256, [10]), (257, [7])]
FORMS = {
    "without lengths": [*SIZE, *GREY, (273, [0])],
    "in one strip of any length": [*SIZE, *GREY, (273, [0]), (278, [2**32 - 1]), (279, [70])],
    "a last strip as long as the others": [*SIZE, *GREY, (273, [0, 40]), (278, [4]), (279, [40, 40])],
    "padded": [*SIZE, *GREY, (273, [0]), (279, [72])],
    "bits": [*SIZE, (258, [1]), *GREY[1:], (273, [0]), (279, [14])],
    "colour": [*SIZE, *COLOUR, (273, [0]), (278, [7]), (279, [210])],
    "planes": [*SIZE, *COLOUR, (273, [0, 70, 140]), (278, [7]), (279, [70] * 3), (284, [2])],
    "planes of strips": [
        *(*SIZE, *COLOUR, (273, [0, 40, 70, 110, 140, 180]), (278, [4]), (279, [40, 30] * 3), (284, [2])),
    ],
    "tiles": [*SIZE, *GREY, (322, [8]), (323, [8]), (324, [0, 64]), (325, [64, 64])],
}


@pytest.mark.parametrize("tags", FORMS.values(), ids=FORMS)
def test_a_tiff_may_have_its_strips_in_many_forms(tmp_path: Path, tags: list[tuple[int, list[int]]]) -> None:
    (tmp_path / "a.tif").write_bytes(page(tags, bytes([255]) * 300))
    assert (read_volume(tmp_path / "a.tif").data == 255).all()
    places = next(values for tag, values in tags if tag in (273, 324))
    if len(places) > 1:
        fewer = [(tag, values[:-1] if tag in (273, 324) else values) for tag, values in tags]
        (tmp_path / "a.tif").write_bytes(page(fewer, bytes([255]) * 300))
        with pytest.raises(InputError, match="its strips or tiles are not those of a page of its size"):
            read_volume(tmp_path / "a.tif")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, data: bytes, *, bits: int = 8, colours: int = 0, interlaced: bool = False, chunks: int = 1
) -> bytes:
    """Rows of pixels, each with the byte that begins it, compressed and in some chunks."""
    head = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, interlaced)
    packed = zlib.compress(data)
    pixels = (chunk(b"IDAT", part) for part in ([packed] if chunks == 1 else [packed[:9], b"", packed[9:]]))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("bits", "colours", "row"), [(8, 0, 13), (1, 0, 2), (8, 2, 39), (16, 0, 26), (8, 6, 52)])
def test_rows_of_a_png_are_all_there(tmp_path: Path, bits: int, colours: int, row: int) -> None:
    path, form = tmp_path / "a.png", {"bits": bits, "colours": colours}
    for chunks in (1, 3):
        path.write_bytes(png(13, 9, bytes(9 * (row + 1)), **form, chunks=chunks))
        assert not read_volume(path).data.any()
    path.write_bytes(png(13, 9, bytes(row + 1), **form))
    with pytest.raises(InputError, match="is cut short: it holds fewer pixels than its header says"):
        read_volume(path)


@pytest.mark.parametrize(("side", "size"), [(8, 79), (5, 36)])
def test_rows_of_an_interlaced_png_are_all_there(tmp_path: Path, side: int, size: int) -> None:
    (tmp_path / "a.png").write_bytes(png(side, side, bytes(size), interlaced=True))
    assert not read_mask(tmp_path / "a.png").data.any()
    (tmp_path / "a.png").write_bytes(png(side, side, bytes(size - side - 1), interlaced=True))
    with pytest.raises(InputError, match="cut short"):
        read_mask(tmp_path / "a.png")


def test_the_frame_of_a_gif_covers_its_screen(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    Image.fromarray(ROWS).save(path)
    content = bytearray(path.read_bytes())
    content[8] = 192  # rows of the screen
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"the frame of a GIF must cover its screen of 64 × 192 pixels, got \(0, 0, 6"):
        read_mask(path)
    content[content.index(b",\0\0\0\0\x40\0\x40\0") + 7] = 192  # and of the frame
    path.write_bytes(content)
    with pytest.raises(InputError, match="is damaged or cut short"):
        read_mask(path)


PHOTO = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
PHOTO[40:] = 128  # what pixels without data become
JPEGS: dict[str, dict[str, object]] = {
    "plain": {},
    "progressive": {"progressive": True},
    "of whole colours": {"subsampling": 0},
    "with marks": {"restart_marker_blocks": 1},
    "with a picture in its head": {"exif": b"Exif\0\0" + b"\xff\xd8\xff\xda\0\x0c\xff\xd9" * 3},
}


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
def test_the_data_of_a_jpeg_fills_the_picture(tmp_path: Path, options: dict[str, object]) -> None:
    out = io.BytesIO()
    Image.fromarray(PHOTO).save(out, "JPEG", **options)
    content = bytearray(out.getvalue())
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert (read_volume(path).data[:, :, 60:] == 128).all()
    content[max(content.find(b"\xff\xc0\0\x11"), content.find(b"\xff\xc2\0\x11")) + 6] = 192  # one bit of the height
    path.write_bytes(content)
    with pytest.raises(InputError, match="is cut short: it holds fewer pixels than its header says"):
        read_volume(path)


def test_a_jpeg_that_was_closed_in_the_middle_is_cut_short(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.fromarray(PHOTO).save(out, "JPEG")
    (tmp_path / "a.jpg").write_bytes(out.getvalue()[:1500] + b"\xff\xd9")
    with pytest.raises(InputError, match="is cut short: it holds fewer pixels than its header says"):
        read_volume(tmp_path / "a.jpg")
