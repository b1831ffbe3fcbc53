"""Samples of pictures that Pillow changes while it reads: label values are those of the file, or it is refused."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attunet.decisions import parse_choices
from attunet.io.readers import read_mask, read_volume

images = pytest.importorskip("PIL.Image")

VALUES = (0, 1, 2, 5)
Refused = Callable[..., str]


def png(path: Path, colour_type: int, channels: int, *, bits: int = 16, row: bytes = b"") -> Path:
    """A PNG, 4 × 4; without a `row` of 16 bits in each channel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + (row or b"".join(struct.pack(">H", value) * channels for value in VALUES))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, bits, colour_type, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(row * 4)) + chunk(b"IEND", b""))
    return path


def tiff(path: Path, bits: int, sample_format: int, data: bytes, *, photometric: int = 1) -> Path:
    """An uncompressed TIFF, 4 × 4."""
    tags = {256: 4, 257: 4, 258: bits, 259: 1, 262: photometric, 273: 8 + 2 + 12 * 10 + 4, 277: 1, 278: 4}
    tags |= {279: len(data), 339: sample_format}
    rows = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(rows)) + b"".join(rows) + bytes(4) + data)
    return path


def regions() -> np.ndarray:
    labels = np.zeros((64, 64), np.uint8)
    labels[10:30, 10:30], labels[30:50, 30:50], labels[5:9, 5:60] = 1, 2, 3
    return labels


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_the_low_byte_of_a_channel_is_not_dropped(
    tmp_path: Path, refused: Refused, colour_type: int, channels: int
) -> None:
    path = png(tmp_path / "a.png", colour_type, channels)
    for read in (read_volume, read_mask):
        refused(path, "must have 8 bits in each of its channels, or one grey channel of 16", read)
    assert set(np.unique(read_mask(png(tmp_path / "grey.png", 0, 1)).data)) == set(VALUES)


def test_a_mask_as_bmp_of_five_bits_is_refused(tmp_path: Path, refused: Refused) -> None:
    rows = struct.pack("<4H", *(value << 10 | value << 5 | value for value in VALUES)) * 4
    head = struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, 16, 0, len(rows), 0, 0, 0, 0)
    (tmp_path / "a.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + head + rows)
    refused(tmp_path / "a.bmp", "a mask as BMP must have 8 bits in each of its colours, got 5", read_mask)
    assert read_volume(tmp_path / "a.bmp").data.shape == (3, 4, 4, 1)


def test_a_sign_of_8_bits_is_not_lost_and_32_bits_get_none(tmp_path: Path, refused: Refused) -> None:
    signed = np.tile(np.array([0, -1, -100, 5]), 4)
    refused(tiff(tmp_path / "8.tif", 8, 2, signed.astype(np.int8).tobytes()), "signed samples of 8 bits are not read")
    assert read_volume(tiff(tmp_path / "16.tif", 16, 2, signed.astype(np.int16).tobytes())).data.min() == -100
    large = np.tile(np.array([0, 1, 2, 3 * 10**9], np.uint32), 4)
    refused(tiff(tmp_path / "32.tif", 32, 1, large.tobytes()), r"samples of 32 bits must be below 2\^31")


@pytest.mark.parametrize(("kind", "name"), [("u1", "a.j2k"), ("u2", "a.j2k"), ("u1", "a.jp2")])
def test_a_sign_of_jpeg_2000_shifts_no_value(tmp_path: Path, refused: Refused, kind: str, name: str) -> None:
    images.fromarray(regions().astype(kind)).save(path := tmp_path / name, "JPEG2000", no_jp2=name == "a.j2k")
    np.testing.assert_array_equal(read_mask(path).data[0, :, :, 0], regions().T)
    content = bytearray(path.read_bytes())
    content[content.index(b"\xff\x51") + 40] |= 0x80  # the sign in SIZ
    path.write_bytes(content)
    for read in (read_volume, read_mask):
        refused(path, "signed samples of JPEG 2000 are not read: save them as TIFF with 16 bits", read)


@pytest.mark.parametrize("bits", [2, 4])
def test_label_values_of_few_bits_are_not_stretched(tmp_path: Path, refused: Refused, bits: int) -> None:
    row = bytes([0b00011011]) * (bits // 2)
    for path in (tiff(tmp_path / "a.tif", bits, 1, row * 4), png(tmp_path / "a.png", 0, 1, bits=bits, row=row)):
        refused(path, f"a mask in greys must have 1, 8, 16 or 32 bits, got {bits}", read_mask)
        assert read_volume(path).data.max() > 2


@pytest.mark.parametrize("bits", [8, 16])
def test_images_whose_white_is_zero_are_inverted_and_label_values_are_not(tmp_path: Path, bits: int) -> None:
    stored = np.tile(np.array(VALUES, f"u{bits // 8}"), (4, 1))
    path = tiff(tmp_path / "a.tif", bits, 1, stored.tobytes(), photometric=0)
    turned = (2**bits - 1 - stored).T
    np.testing.assert_array_equal(read_volume(path).data[0, :, :, 0], turned)
    mask = read_mask(path)
    np.testing.assert_array_equal(mask.data[0, :, :, 0], stored.T)
    assert [one.rule for one in mask.decisions] == ["raw-tiff"]
    mask = read_mask(path, choices=parse_choices(["raw-tiff=inverted"]))
    np.testing.assert_array_equal(mask.data[0, :, :, 0], turned)
    assert not mask.decisions


def test_fractions_have_no_white_that_could_be_zero(tmp_path: Path, refused: Refused) -> None:
    path = tiff(tmp_path / "a.tif", 32, 3, np.tile(np.array(VALUES, np.float32), 4).tobytes(), photometric=0)
    refused(path, "a TIFF of fractions must not say that white is zero")
    mask = read_mask(path)
    assert set(np.unique(mask.data)) == set(VALUES)
    assert [one.rule for one in mask.decisions] == ["raw-tiff"]


@pytest.mark.parametrize("form", ["P5\n4 1\n5\n\0\1\2\5", "P2\n4 1\n5\n0 1 2 5\n", "P5\n2 1\n1000\n\0\1\0\5"])
def test_label_values_are_not_stretched_to_the_maximum(tmp_path: Path, refused: Refused, form: str) -> None:
    (tmp_path / "a.pgm").write_bytes(form.encode())
    refused(tmp_path / "a.pgm", "must have the maximum 255 or 65535, got (5|1000)", read_mask)
    read_volume(tmp_path / "a.pgm")


def test_a_mask_is_compressed_without_loss(tmp_path: Path, refused: Refused) -> None:
    grey, colour = images.fromarray(regions()), images.fromarray(regions()).convert("RGB")
    colour.save(tmp_path / "lossy.webp", quality=50)
    grey.save(tmp_path / "lossy.jp2", irreversible=True, quality_mode="rates", quality_layers=[20])
    refused(tmp_path / "lossy.webp", "a mask as WebP must be compressed without loss", read_mask)
    refused(tmp_path / "lossy.jp2", "a mask as JPEG 2000 must have 8 or 16 bits and be compressed without", read_mask)
    colour.save(tmp_path / "a.webp", lossless=True)
    grey.save(tmp_path / "a.jp2")
    grey.save(tmp_path / "a.j2k")
    assert [decision.rule for decision in read_mask(tmp_path / "a.jp2").decisions] == ["mask-jpeg-2000"]
    for name in ("a.webp", "a.jp2", "a.j2k"):
        np.testing.assert_array_equal(read_mask(tmp_path / name).data[0, :, :, 0], regions().T)


def test_a_loss_that_one_component_or_tile_states_is_one(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "a.j2k"
    images.fromarray(regions()).save(path, irreversible=True, quality_mode="rates", quality_layers=[20], no_jp2=True)
    content = path.read_bytes()
    at = content.index(b"\xff\x52")
    style = content[at + 9 : at + 14]
    assert style.endswith(b"\0")
    end = at + 2 + int.from_bytes(content[at + 2 : at + 4])
    component = b"\xff\x53" + (4 + len(style)).to_bytes(2) + b"\0\0" + style
    path.write_bytes(content[: at + 13] + b"\1" + content[at + 14 : end] + component + content[end:])
    refused(path, "a mask as JPEG 2000 must have 8 or 16 bits and be compressed without", read_mask)


def test_a_stack_of_imagej_behind_one_page_is_refused(tmp_path: Path, refused: Refused) -> None:
    text = "ImageJ=1.53t\nimages=10\nslices=10\n"
    images.fromarray(regions()).save(tmp_path / "a.tif", description=text)
    refused(tmp_path / "a.tif", "holds 10 images of ImageJ and 1 page")
