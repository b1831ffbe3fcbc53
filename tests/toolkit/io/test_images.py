import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from attunet.classes import Classes
from attunet.decisions import parse_choices
from attunet.errors import InputError
from attunet.io.pictures.mask_colours import codes_of
from attunet.io.readers import read_mask, read_volume
from attunet.io.writers import write_labels
from attunet.volumes.volume import Volume

Image = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(0)


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.TIFF"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_grey_pictures_are_volumes_of_one_slice(tmp_path: Path, name: str, kind: type) -> None:
    pixels = RNG.integers(0, np.iinfo(kind).max, (7, 5)).astype(kind)
    volume = read_volume(save(tmp_path / name, pixels))
    np.testing.assert_array_equal(volume.data[0, :, :, 0], pixels.T)
    assert volume.data.dtype in (kind, np.int32)
    assert (volume.unit, volume.spacing) == ("pixel", (1, 1, 1))


def test_colour_is_three_channels_and_alpha_is_dropped(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 255, (7, 5, 4)).astype(np.uint8)
    for bands in (3, 4):
        volume = read_volume(save(tmp_path / f"{bands}.png", pixels[:, :, :bands]))
        np.testing.assert_array_equal(volume.data[..., 0], pixels[:, :, :3].transpose(2, 1, 0))


def test_pages_of_a_tiff_are_slices(tmp_path: Path, refused) -> None:
    pages = RNG.integers(0, 255, (4, 7, 5)).astype(np.uint8)
    images = [Image.fromarray(page) for page in pages]
    images[0].save(tmp_path / "a.tif", save_all=True, append_images=images[1:], compression="tiff_lzw")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").data[0], pages.transpose(2, 1, 0))
    images[0].save(tmp_path / "b.tif", save_all=True, append_images=[images[1].resize((9, 9))])
    refused(tmp_path / "b.tif", "every page must have the same size")


def test_label_images_are_indices(tmp_path: Path, refused) -> None:
    labels = RNG.integers(0, 4, (7, 5)).astype(np.uint8)
    palette = Image.fromarray(labels).convert("P")
    palette.putdata(labels.ravel().tolist())
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "palette.png")
    save(tmp_path / "grey.png", labels)
    save(tmp_path / "rgb.png", np.repeat(labels[:, :, None], 3, axis=2))
    Image.fromarray(labels > 0).save(tmp_path / "binary.png")
    mask = read_mask(tmp_path / "palette.png")  # colours, and the index of each
    np.testing.assert_array_equal(np.vectorize(mask.header.get)(mask.data[0][:, :, 0]), labels.T)
    for name in ("grey", "rgb"):
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png").data[0][:, :, 0], labels.T)
    white_first = Image.fromarray((labels == 0).astype(np.uint8))  # as a program that makes files smaller may leave it
    white_first.putpalette([255, 255, 255, 0, 0, 0])
    white_first.save(tmp_path / "white first.png")
    for name in ("binary", "white first"):
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png").data[0][:, :, 0], 255 * (labels.T > 0))
    save(tmp_path / "colours.png", RNG.integers(0, 255, (70, 50, 3)).astype(np.uint8))
    refused(tmp_path / "colours.png", "a mask in colours has at most 256 of them", read_mask)


def test_bmp_and_gif_are_pictures_too(tmp_path: Path, refused) -> None:
    labels = np.zeros((9, 14), np.uint8)
    labels[2:5, 3:9] = 255
    for name in ("a.bmp", "a.gif"):
        np.testing.assert_array_equal(read_mask(save(tmp_path / name, labels)).data[0][:, :, 0], labels.T)
        np.testing.assert_array_equal(read_volume(tmp_path / name).data, labels.T[None, :, :, None])
    frames = [Image.fromarray(labels), Image.fromarray(labels.T.reshape(labels.shape))]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    refused(tmp_path / "b.gif", r"b\.gif: a GIF must have one frame")


def test_a_bmp_of_many_runs_is_read(tmp_path: Path) -> None:
    labels = RNG.integers(0, 3, (600, 600)).astype(np.uint8)
    runs = b"".join(b"".join(bytes((1, value)) for value in row) + b"\0\0" for row in labels[::-1]) + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, 600, 600, 1, 8, 1, len(runs), 0, 0, 256, 0)
    palette = b"".join(bytes((grey, grey, grey, 0)) for grey in range(256))
    start = 14 + 40 + len(palette)
    content = b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + head + palette + runs
    (tmp_path / "a.bmp").write_bytes(content)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.bmp").data[0, :, :, 0], labels.T)


@pytest.mark.parametrize("name", ["a.tif", "lzw.tif", "a.png", "a.webp"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_orientation_is_applied_once_or_ignored(tmp_path: Path, name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.arange(16, dtype=np.uint8).reshape(2, 8)
    pages = [Image.fromarray(np.stack([pixels + 9 * page] * 3, axis=-1)) for page in range(2 if ".tif" in name else 1)]
    options = {"save_all": True, "append_images": pages[1:]} if ".tif" in name else {"lossless": True}
    pages[0].save(tmp_path / name, exif=exif, compression="tiff_lzw" if "lzw" in name else None, **options)
    turned = (pixels[:, ::-1], pixels[::-1, ::-1], pixels[::-1], pixels.T, np.rot90(pixels, -1), None, np.rot90(pixels))
    turned = {**dict(enumerate(turned, 2)), 7: pixels[::-1, ::-1].T}[orientation]
    for choices, expected in (([], turned), (["exif-orientation=ignore"], pixels)):
        data = read_volume(tmp_path / name, choices=parse_choices(choices)).data
        for page in range(len(pages)):
            np.testing.assert_array_equal(data[0, :, :, page], expected.T + 9 * page)


def png_of(width: int, height: int, body: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "height"), [(2**31 - 1, 2**31 - 1), (100_000, 100_000), (30_000, 30_000), (12_000, 12_000)]
)
def test_a_small_picture_that_declares_a_large_one_asks_for_no_memory(
    tmp_path: Path, width: int, height: int, refused, little_memory
) -> None:
    (tmp_path / "bomb.png").write_bytes(png_of(width, height, zlib.compress(bytes(10_000))))
    with little_memory():
        refused(tmp_path / "bomb.png", r"bomb\.png: (at most|is cut short|cannot be read)")


def test_the_refusal_of_damaged_exif_quotes_nothing_of_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "DOE"  # its description
    exif = exif.tobytes().replace(b"Exif\0\0MM", b"Exif\0\0DOE")
    path = save(tmp_path / "a.webp", np.zeros((16, 16, 3), np.uint8), exif=exif)
    with pytest.raises(InputError, match=r"a\.webp: .*it is damaged or cut short \(not a TIFF file") as refusal:
        read_volume(path)
    assert "DOE" not in str(refusal.value)


def test_damaged_and_unsupported_pictures_are_one_line(tmp_path: Path, refused) -> None:
    save(tmp_path / "b.tif", RNG.integers(0, 255, (70, 50)).astype(np.uint8), compression="jpeg")
    refused(tmp_path / "b.tif", r"TIFF compression must be one of raw, .* got jpeg")
    Image.fromarray(RNG.integers(0, 255, (7, 5)).astype(np.uint8)).save(tmp_path / "c.pcx")
    (tmp_path / "c.pcx").rename(tmp_path / "c.png")
    refused(tmp_path / "c.png", "cannot be read as a picture")
    Image.new("CMYK", (5, 5)).save(tmp_path / "d.tif")
    refused(tmp_path / "d.tif", "must be grey, palette or RGB, got Pillow's mode CMYK")


def test_jpeg_photographs_are_read_and_sizes_they_cannot_hold_are_not(tmp_path: Path, refused) -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, 30:] = (200, 100, 50)
    volume = read_volume(save(tmp_path / "a.jpg", pixels, quality=95))
    assert (volume.data.shape, volume.data.dtype, volume.unit) == ((3, 60, 40, 1), np.uint8, "pixel")
    assert np.abs(volume.data[:, 50, 20, 0].astype(int) - (200, 100, 50)).max() < 8
    raw = bytearray((tmp_path / "a.jpg").read_bytes())
    at = raw.index(b"\xff\xc0") + 5  # height and width in the frame header
    raw[at : at + 4] = struct.pack(">HH", 65000, 65000)
    (tmp_path / "bomb.jpg").write_bytes(raw)
    refused(
        tmp_path / "bomb.jpg", r"bomb\.jpg: (at most .* values are supported|cannot be read as a picture: Image size)"
    )


def test_a_jpeg_mask_is_black_and_white_or_keeps_its_greys(tmp_path: Path, refused) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:41, 11:30] = 255
    labels = read_mask(save(tmp_path / "mask.jpg", mask, quality=60)).data[0]
    assert set(np.unique(labels)) == {0, 255}
    assert (mask != labels[:, :, 0].T).mean() < 0.01
    mask[5:12, 45:53] = 128  # one pixel in a hundred, and none of white's
    labels = read_mask(save(tmp_path / "three.jpg", mask, quality=90)).data[0]
    assert np.abs(labels[45:53, 5:12].astype(int) - 128).max() < 20
    colours = np.zeros((64, 64, 3), np.uint8)
    colours[20:41, 11:30, 0] = 255
    refused(save(tmp_path / "colours.jpg", colours), r"colours\.jpg: a mask as JPEG must be grey", read_mask)


@pytest.mark.parametrize(("values", "mode"), [((0, 255), "L"), ((0, 4000), "I;16")])
def test_label_maps_of_pictures_are_pictures(tmp_path: Path, values: tuple[int, int], mode: str) -> None:
    classes, indices = Classes(("background", "x"), values), RNG.integers(0, 2, (7, 5, 3)).astype(np.uint8)
    like = Volume(np.zeros((1, 7, 5, 1), np.uint8), np.eye(4), unit="pixel")
    write_labels(tmp_path / "a.png", indices[:, :, :1], classes, like)
    assert (Image.open(tmp_path / "a.png").mode, Image.open(tmp_path / "a.png").size) == (mode, (7, 5))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png").data[0], np.array(values)[indices[:, :, :1]])
    stack = Volume(np.zeros((1, 7, 5, 3), np.uint8), np.eye(4), unit="pixel")
    write_labels(tmp_path / "a.tif", indices, classes, stack)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif").data[0], np.array(values)[indices])
    for name, volume, words in (
        ("b.png", stack, "holds one slice"),
        ("c.png", Volume(stack.data, np.eye(4)), "must end in .nii"),
    ):
        with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path / name))}: .*{words}"):
            write_labels(tmp_path / name, indices, classes, volume)


def test_label_maps_of_colours_are_palettes_of_these_colours(tmp_path: Path) -> None:
    like = Volume(np.zeros((1, 7, 5, 1), np.uint8), np.eye(4), unit="pixel")
    red, green = (int(code) for code in codes_of(np.array([(255, 0, 0), (0, 255, 0)])))
    indices = RNG.integers(0, 3, (7, 5, 1)).astype(np.uint8)
    for name in ("a.png", "a.tif"):
        write_labels(tmp_path / name, indices, Classes(("background", "x", "y"), (0, red, green)), like)
        rgb = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        np.testing.assert_array_equal(rgb, np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)])[indices[:, :, 0].T])
        np.testing.assert_array_equal(read_mask(tmp_path / name).data[0], np.array([0, red, green])[indices])


@pytest.mark.parametrize("orientation", [3, 6])
def test_tiff_photographs_are_turned_once(tmp_path: Path, orientation: int) -> None:
    pixels = RNG.integers(0, 255, (12, 8)).astype(np.uint8)
    save(tmp_path / "plain.tif", pixels)
    save(tmp_path / "turned.tif", pixels, tiffinfo={274: orientation})
    turned = np.rot90(pixels, 2 if orientation == 3 else 3)
    np.testing.assert_array_equal(read_volume(tmp_path / "turned.tif").data[0, :, :, 0], turned.T)


@pytest.mark.parametrize(("form", "bytes_per_pixel"), [("palette", 11), ("colours", 16), ("alpha", 17)])
def test_a_mask_of_many_pixels_takes_few_bytes_for_each(
    tmp_path: Path, little_memory, form: str, bytes_per_pixel: int
) -> None:
    side = 3000
    labels = np.zeros((side, side), np.uint8)
    labels[:50, :50], labels[60:90, :50] = 1, 2
    colours = np.array([[0, 0, 0, 0], [255, 0, 0, 255], [0, 255, 0, 255]], np.uint8)
    picture = Image.fromarray(labels)
    picture.putpalette(colours[:, :3].tobytes())
    if form != "palette":
        picture = Image.fromarray(np.ascontiguousarray(colours[:, : 3 if form == "colours" else 4][labels]))
    picture.save(tmp_path / "a.png")
    del picture
    read_mask(save(tmp_path / "small.png", labels[:9, :9]))
    with little_memory(bytes_per_pixel * side**2 / 2**20):
        mask = read_mask(tmp_path / "a.png")
    codes = np.array([0, *codes_of(colours[1:, :3])], np.int32)
    np.testing.assert_array_equal(mask.data[0, :, :, 0], codes[labels.T])
