"""Pictures with more parts than they need are refused before Pillow has worked through them, whatever their format."""

import gzip
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

from attunet.errors import InputError  # noqa: E402
from attunet.io.headers import count_voxels  # noqa: E402
from attunet.io.readers import read_volume  # noqa: E402

BASE = ((256, 4, 1, 16), (257, 4, 1, 16), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8))
TAGS = (*BASE, (277, 3, 1, 1), (278, 4, 1, 16), (279, 4, 1, 256))


def tiff(pages: int, tags: tuple[tuple[int, int, int, int], ...] = TAGS, data: int = 256) -> bytes:
    """Pages that share one strip of pixels, which starts at the file's beginning."""
    size = 2 + 12 * len(tags) + 4
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    following = (8 + size * (page + 1) if page + 1 < pages else 0 for page in range(pages))
    return b"II*\0" + struct.pack("<I", 8) + b"".join(body + struct.pack("<I", at) for at in following) + bytes(data)


def saved(form: str) -> bytes:
    out = io.BytesIO()
    Image.new("L", (64, 64)).save(out, form)
    return out.getvalue()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def after(data: bytes, begin: bytes, filling: bytes) -> bytes:
    at = data.index(begin)
    return data[:at] + filling + data[at:]


GIF_IMAGE = b",\0\0\0\0@\0@\0"
PARTS: dict[str, Callable[[], bytes]] = {
    "pages.tif": lambda: tiff(20_000),
    "tags.tif": lambda: tiff(8, (*TAGS, *[(700, 1, 1, 1)] * 60_000)),
    "shared.tif": lambda: tiff(500, (*TAGS, *((60_000 + n, 1, 2_000_000, 8) for n in range(20))), 2_000_000),
    "chunks.png": lambda: after(saved("PNG"), b"\0\0\0\x0dIHDR", chunk(b"abCd") * 300_000),
    "empty.png": lambda: saved("PNG")[:33] + chunk(b"IDAT") * 300_000 + saved("PNG")[33:],
    "behind.png": lambda: saved("PNG")[:-12] + chunk(b"tEXt", b"a\0b") * 300_000 + saved("PNG")[-12:],
    "comments.jpg": lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 600_000 + saved("JPEG")[2:],
    "filling.jpg": lambda: b"\xff\xd8" + b"\xff" * 600_000 + saved("JPEG")[2:],
    "extensions.gif": lambda: after(saved("GIF"), GIF_IMAGE, b"!\xfe\1a\0" * 400_000),
    "blocks.gif": lambda: after(saved("GIF"), GIF_IMAGE, b"!\xfe" + b"\1a" * 600_000 + b"\0"),
    "boxes.jp2": lambda: after(saved("JPEG2000"), saved("JPEG2000")[32:40], b"\0\0\0\x08abcd" * 400_000),
    "comment.pgm": lambda: b"P5\n#" + b"x" * 600_000 + b"\n4 4 255\n" + bytes(16),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_picture_of_more_parts_than_it_needs_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PARTS[name]())
    with pytest.raises(InputError, match="has more chunks, tags or pages than a picture of its size needs") as refusal:
        read_volume(tmp_path / name)
    assert "\n" not in str(refusal.value)
    count_voxels(tmp_path / name)  # of the header alone: an answer, or 0 for one that the reader refuses


@pytest.mark.parametrize(("form", "options"), [("JPEG2000", {}), ("WEBP", {"lossless": True})])
def test_a_picture_of_one_colour_holds_what_its_bytes_may_hold(tmp_path: Path, form: str, options: dict) -> None:
    """Both formats put any number of equal pixels into some hundred bytes."""
    ending = "jp2" if form == "JPEG2000" else "webp"
    for side in (2048, 6000):
        Image.new("L" if form == "JPEG2000" else "RGB", (side, side), 7).save(
            tmp_path / f"{side}.{ending}", form, **options
        )
    assert read_volume(tmp_path / f"2048.{ending}").data.shape[1:] == (2048, 2048, 1)
    with pytest.raises(
        InputError, match=rf"is cut short: the header says \d+,000,000 values, a {form} of [\d,]+ bytes"
    ):
        read_volume(tmp_path / f"6000.{ending}")


@pytest.mark.parametrize("ending", ["j2k", "jp2"])
def test_tiles_of_jpeg_2000_that_are_missing_are_no_black_pixels(tmp_path: Path, ending: str, little_memory) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (255, 255), np.uint8)
    for name, options in (("whole", {}), ("tiled", {"tile_size": (64, 64)})):
        Image.fromarray(pixels).save(tmp_path / f"{name}.{ending}", **options)
        assert (read_volume(tmp_path / f"{name}.{ending}").data[0, :, :, 0] == pixels.T).all()
    path = tmp_path / f"whole.{ending}"
    content = path.read_bytes()
    at = content.index(b"\xff\x4f\xff\x51") + 24  # width and height of a tile
    path.write_bytes(content[:at] + struct.pack(">II", 1, 1) + content[at + 8 :])
    with (
        little_memory(),
        pytest.raises(InputError, match="is cut short: it lacks tiles or packets that its header announces"),
    ):
        read_volume(path)


@pytest.mark.parametrize("ending", ["j2k", "jp2"])
def test_a_code_stream_in_a_comment_is_none(tmp_path: Path, ending: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (255, 255), np.uint8)
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    stream, tile = content.index(b"\xff\x4f\xff\x51"), content.index(b"\xff\x90\0\x0a")
    other = b"jp2c" + content[stream:tile]  # and no tile
    comment = b"\xff\x64" + (len(other) + 4).to_bytes(2, "big") + b"\0\0" + other
    longer = int.from_bytes(content[stream - 8 : stream - 4], "big") + len(comment)
    head = content[: stream - 8] + longer.to_bytes(4, "big") + b"jp2c" if ending == "jp2" else b""
    path.write_bytes(head + content[stream:tile] + comment + content[tile:])
    assert (read_volume(path).data[0, :, :, 0] == pixels.T).all()


def segment(marker: int, content: bytes) -> bytes:
    return bytes((255, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def code_stream(coding: bytes, more: bytes = b"", in_tile: bytes = b"") -> bytes:
    """JPEG 2000 of 2048 × 2048 pixels in one tile without data. `coding` is the segment COD."""
    size = segment(0x51, struct.pack(">HIIIIIIIIH", 0, 2048, 2048, 0, 0, 2048, 2048, 0, 0, 1) + b"\7\1\1")
    head = b"\xff\x4f" + size + segment(0x52, coding) + segment(0x5C, b"\x40\x48") + more
    tile = struct.pack(">HIBB", 0, 14 + len(in_tile) + 64, 0, 1)
    return head + segment(0x90, tile) + in_tile + b"\xff\x93" + bytes(64) + b"\xff\xd9"


CODING = bytes.fromhex("00 00 00 01 00 00 04 04 00 01")  # one layer, blocks of 64 × 64, no wavelet
TINY = b"\1" + CODING[1:] + b"\0"  # precincts of one pixel
HIDDEN = b"\xff\x2e\0\x12" + segment(0x52, TINY) + b"\0"
STREAMS = {
    "precincts of a pixel": code_stream(TINY),
    "precincts of a row": code_stream(TINY[:-1] + b"\x0f"),
    "layers": code_stream(CODING[:2] + b"\xff\xff" + CODING[4:]),
    "blocks of 4 × 4": code_stream(CODING[:6] + b"\0\0" + CODING[8:]),
    "a component's precincts": code_stream(CODING, segment(0x53, b"\0\1" + TINY[5:])),
    "a tile's precincts": code_stream(CODING, in_tile=segment(0x52, TINY)),
    "precincts behind no marker": code_stream(CODING, HIDDEN),  # where OpenJPEG finds them
}


@pytest.mark.parametrize("content", STREAMS.values(), ids=STREAMS)
def test_jpeg_2000_has_a_byte_for_each_packet(tmp_path: Path, content: bytes, little_memory) -> None:
    (tmp_path / "a.j2k").write_bytes(content)
    with little_memory(), pytest.raises(InputError, match="is cut short: it lacks tiles or packets"):
        read_volume(tmp_path / "a.j2k")
    (tmp_path / "b.j2k").write_bytes(code_stream(CODING))
    assert read_volume(tmp_path / "b.j2k").data.shape == (1, 2048, 2048, 1)


FORMS = [
    {"codeblock_size": (16, 16)},
    {"precinct_size": (32, 32)},
    {"tile_size": (64, 64), "num_resolutions": 3},
    {"quality_mode": "rates", "quality_layers": [80, 40, 20, 10, 5, 1]},
    {"progression": "CPRL", "precinct_size": (64, 64), "irreversible": True},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_2000_of_one_colour_is_whole_in_every_form(tmp_path: Path, form: dict[str, object], mode: str) -> None:
    Image.new(mode, (300, 257)).save(tmp_path / "a.jp2", **form)
    assert not read_volume(tmp_path / "a.jp2").data.any()


def test_pages_that_share_their_pixels_are_no_more_than_the_file_holds(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(2_000))
    assert read_volume(tmp_path / "a.tif").data.shape == (1, 16, 16, 2_000)
    wide = ((256, 4, 1, 4_096), (257, 4, 1, 4_096), *TAGS[2:-1], (279, 4, 1, 2**24))
    (tmp_path / "b.tif").write_bytes(tiff(50, wide, 2**24))
    with pytest.raises(InputError, match="is cut short: the header says 838,860,800 values"):
        read_volume(tmp_path / "b.tif")


def tiled(compression: int, data: bytes, *tags: tuple[int, int, int, int]) -> bytes:
    """64 × 64 pixels, in one tile that other tags may describe."""
    sides = tags or ((322, 4, 1, 128), (323, 4, 1, 256))
    head = ((256, 4, 1, 64), (257, 4, 1, 64), *BASE[2:3], (259, 3, 1, compression), *BASE[4:5], (277, 3, 1, 1))
    rows = (*head, *sides, (324, 4, 1, 8 + 2 + 12 * (8 + len(sides)) + 4), (325, 4, 1, len(data)))
    return tiff(1, rows, 0) + data


@pytest.mark.parametrize(("compression", "data"), [(1, bytes(2**15)), (8, zlib.compress(bytes(2**15)))])
def test_a_tile_may_be_larger_than_its_picture(tmp_path: Path, compression: int, data: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(tiled(compression, data))
    assert read_volume(tmp_path / "a.tif").data.shape == (1, 64, 64, 1)
    assert count_voxels(tmp_path / "a.tif")[0] == 2**15


def test_tiles_of_bigtiff_may_have_sides_of_64_bits(tmp_path: Path) -> None:
    """As Bio-Formats writes them."""
    picture = ((256, 4, 20), (257, 4, 30), (258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 1))
    rows = (*picture, (322, 16, 32), (323, 16, 32), (324, 16, 16 + 8 + 20 * 10 + 8), (325, 16, 32 * 32))
    entries = b"".join(struct.pack("<HHQQ", tag, kind, 1, value) for tag, kind, value in rows)
    head = struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, len(rows)) + entries + bytes(8)
    (tmp_path / "a.tif").write_bytes(head + bytes(range(32)) * 32)
    assert (read_volume(tmp_path / "a.tif").data[0, :, :, 0] == np.arange(20)[:, None]).all()
    assert count_voxels(tmp_path / "a.tif")[0] == 32 * 32


LARGE, SMALL, EMPTY_LZW = 30_000, 64, b"\x80\0\x00\x40\x40"
TILES = {
    "large": ((322, 4, 1, LARGE), (323, 4, 1, LARGE)),
    "of the largest size": ((322, 4, 1, 46_336), (323, 4, 1, 46_336)),
    "wide": ((322, 4, 1, 2**24), (323, 4, 1, SMALL)),
    "first large": tuple((tag, 4, 1, side) for tag in (322, 323) for side in (LARGE, SMALL)),
    "last large": tuple((tag, 4, 1, side) for tag in (322, 323) for side in (SMALL, LARGE)),
    "of 64 bits": ((322, 17, 1, 0), (323, 17, 1, 0)),  # which libtiff reads at 0 and Pillow does not know
    "with a sign": ((322, 9, 1, LARGE), (323, 9, 1, LARGE)),
}


@pytest.mark.parametrize("tiles", TILES.values(), ids=TILES)
def test_tiles_are_no_larger_than_the_file_can_hold(tmp_path: Path, tiles, little_memory) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiled(5, EMPTY_LZW, *tiles))
    with little_memory(), pytest.raises(InputError, match=r"the header says [\d,]+|the sides of its tiles must be"):
        read_volume(path)
    assert count_voxels(path)[0] in (0, LARGE**2, 46_336**2, 2**24 * SMALL)


def test_a_later_page_is_not_larger_than_the_first(tmp_path: Path, little_memory) -> None:
    """The server looks at the first one, before it takes memory."""
    pages = [Image.new("L", (side, side)) for side in (64, 8_000)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_adobe_deflate")
    assert count_voxels(tmp_path / "a.tif")[0] == 2 * 64 * 64
    with little_memory(40), pytest.raises(InputError, match="every page must have the same size and channels; page 2"):
        read_volume(tmp_path / "a.tif")


@pytest.mark.parametrize("progressive", [True, False])
def test_a_jpeg_has_a_bound_of_scans(tmp_path: Path, progressive: bool) -> None:
    """A sequential one may have a scan for each colour, which libjpeg reads as often as it comes."""
    path = tmp_path / "a.jpg"
    Image.new("RGB", (64, 64), (9, 99, 199)).save(path, progressive=progressive)
    assert read_volume(path).data.shape == (3, 64, 64, 1)
    content = path.read_bytes()
    last = content.rindex(b"\xff\xda")
    scan = content[last:-2] if progressive else bytes.fromhex("ffda 0008 01 01 00 003f00 0000")
    path.write_bytes(content[:last] + scan * 4000 + content[-2:])
    with pytest.raises(InputError, match=r"a JPEG may have at most 50 scans, got [0-9,]+: save it as PNG"):
        read_volume(path)


def test_a_gzipped_picture_holds_what_its_header_says(tmp_path: Path, little_memory) -> None:
    path = tmp_path / "a.pgm.gz"
    head = gzip.compress(b"P5 2 1 255\n\x01\x02")
    path.write_bytes(head)
    assert read_volume(path).data.ravel().tolist() == [1, 2]
    path.write_bytes(head + gzip.compress(bytes(2**24)) * 20)
    with little_memory():
        assert count_voxels(path)[0] == 2
        with pytest.raises(InputError, match="must unpack to at most 65,568 bytes, by its header and its size"):
            read_volume(path)
    path.write_bytes(head[:-8] + bytes(4) + head[-4:])
    with pytest.raises(InputError, match="cannot be read as a picture"):
        read_volume(path)


def test_a_server_knows_the_size_of_a_gzipped_picture(tmp_path: Path, little_memory) -> None:
    (tmp_path / "a.pgm.gz").write_bytes(gzip.compress(b"P5 10000 10000 255\n") + gzip.compress(bytes(2**24)) * 6)
    with little_memory(40):
        assert count_voxels(tmp_path / "a.pgm.gz")[0] == 100_000_000
    (tmp_path / "a.pgm").write_bytes(b"P5 30000 20000 255\n")
    assert count_voxels(tmp_path / "a.pgm")[0] == 0  # which the reader refuses


@pytest.mark.parametrize("options", [{}, {"big_tiff": True}, {"compression": "tiff_lzw"}], ids=str)
def test_pages_are_counted_as_pillow_counts_them(tmp_path: Path, options: dict[str, object]) -> None:
    pages = [Image.fromarray(np.full((5, 7), number, np.uint8)) for number in range(9)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], **options)
    with Image.open(tmp_path / "a.tif") as image:
        assert image.n_frames == 9
    assert count_voxels(tmp_path / "a.tif")[0] == 9 * 5 * 7
    assert read_volume(tmp_path / "a.tif").data[0, 0, 0].tolist() == list(range(9))


def test_pages_of_a_file_in_the_other_order_of_bytes_are_counted(tmp_path: Path) -> None:
    entries = b"".join(
        struct.pack(">HHI", tag, kind, count) + struct.pack(">I" if kind == 4 else ">HH", *([value, 0][: 5 - kind]))
        for tag, kind, count, value in TAGS
    )
    pages = (struct.pack(">H", len(TAGS)) + entries + struct.pack(">I", at) for at in (8 + 6 + len(entries), 0))
    (tmp_path / "a.tif").write_bytes(b"MM\0*" + struct.pack(">I", 8) + b"".join(pages) + bytes(256))
    assert read_volume(tmp_path / "a.tif").data.shape == (1, 16, 16, 2)
