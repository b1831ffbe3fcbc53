"""Compressed pixels of DICOM: decoded as they were, or refused before their decoder takes memory and time."""

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from attunet.io.dicom import decode
from attunet.io.dicom.compressed import form_of
from attunet.io.dicom.decode import DECODER, Decoder, DecodingError, Request
from attunet.io.readers import read_volume

pydicom = pytest.importorskip("pydicom")
Image = pytest.importorskip("PIL.Image")
from pydicom.encaps import encapsulate, generate_frames  # noqa: E402

# Encoders want more than a few pixels
DATA = np.repeat(np.repeat(np.random.default_rng(0).integers(70, 750, (12, 10, 6)), 4, axis=0), 4, axis=1)
DATA = DATA.astype(np.uint16)
AXIAL = np.array([[-1.5, 0, 0, 90], [0, -1.2, 0, 70], [0, 0, 5, -30], [0, 0, 0, 1.0]])
SYNTAXES = {"RLE": "1.2.840.10008.1.2.5", "JPEG-LS": "1.2.840.10008.1.2.4.80", "JPEG 2000": "1.2.840.10008.1.2.4.90"}


def compress(path: Path, name: str) -> "pydicom.Dataset":
    dataset = pydicom.dcmread(path)
    dataset.compress(SYNTAXES[name], generate_instance_uid=False)
    dataset.save_as(path)
    return dataset


@pytest.mark.parametrize("name", SYNTAXES)
def test_compressed_slices_are_the_slices(tmp_path: Path, write_series, name: str) -> None:
    paths = write_series(tmp_path / "s", DATA, AXIAL, BitsStored=12, HighBit=11)
    expected = read_volume(tmp_path / "s").data
    for path in paths:
        compress(path, name)
    volume = read_volume(tmp_path / "s")
    np.testing.assert_array_equal(volume.data, expected)
    assert volume.data.dtype == np.uint16


def test_the_decoder_imports_nothing_from_the_working_directory(
    tmp_path: Path, write_series, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_series(tmp_path / "s", DATA[:, :, :1], AXIAL, BitsStored=12, HighBit=11)[0]
    compress(path, "JPEG-LS")
    for module in ("numpy", "pydicom", "json", "attunet"):
        (path.parent / f"{module}.py").write_text("open('executed', 'w'); raise SystemExit")
    monkeypatch.chdir(path.parent)
    assert Decoder().decode(_request(path), pydicom.dcmread(path).PixelData).shape == (40, 48)
    assert not Path("executed").exists()


def _request(path: Path) -> Request:
    return _request_of(str(pydicom.dcmread(path).file_meta.TransferSyntaxUID), bits_stored=12)


def _request_of(syntax: str, bits_stored: int) -> Request:
    return Request(
        syntax=syntax,
        rows=40,
        columns=48,
        number_of_frames=1,
        bits_allocated=16,
        bits_stored=bits_stored,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
    )


@pytest.mark.parametrize("name", ["JPEG-LS", "JPEG 2000"])
def test_a_stream_of_another_size_than_its_header_is_refused_before_it_is_decoded(
    tmp_path: Path, write_series, name: str, refused
) -> None:
    path = write_series(tmp_path / "s", DATA[:, :, :1], AXIAL, BitsStored=12, HighBit=11)[0]
    dataset = compress(path, name)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    assert form_of(frame)[:2] == (dataset.Rows, dataset.Columns)
    raw = path.read_bytes()
    lie = (60000).to_bytes(4, "big") if name == "JPEG 2000" else (60000).to_bytes(2, "big")
    at = raw.index(b"\xff\x4f\xff\x51") + 8 if name == "JPEG 2000" else raw.index(b"\xff\xf7") + 5
    path.write_bytes(raw[:at] + lie + raw[at + len(lie) :])
    refused(path, "its compressed frames must have the 40 × 48 pixels of the header")


def test_tiles_that_are_missing_are_no_black_pixels(tmp_path: Path, write_series, refused) -> None:
    path = write_series(tmp_path / "s", DATA[:, :, :1], AXIAL, BitsStored=12, HighBit=11)[0]
    compress(path, "JPEG 2000")
    raw = path.read_bytes()
    at = raw.index(b"\xff\x4f\xff\x51") + 24
    path.write_bytes(raw[:at] + (1).to_bytes(4, "big") * 2 + raw[at + 8 :])
    refused(path, "its compressed pixels are cut short: tiles, packets or the end are missing")


def test_packets_that_are_missing_take_no_time(tmp_path: Path, write_series, refused) -> None:
    path = write_series(tmp_path / "s", DATA[:, :, :1], AXIAL, BitsStored=12, HighBit=11)[0]
    compress(path, "JPEG 2000")
    raw = path.read_bytes()
    layers = raw.index(b"\xff\x52", raw.index(b"\xff\x4f\xff\x51")) + 6
    path.write_bytes(raw[:layers] + b"\xff\xff" + raw[layers + 2 :])
    refused(path, "its compressed pixels are cut short: tiles, packets or the end are missing")


def test_a_tile_in_a_comment_is_not_there(tmp_path: Path, write_series, refused) -> None:
    path = write_series(tmp_path / "s", DATA[:, :, :1], AXIAL, BitsStored=12, HighBit=11)[0]
    dataset = compress(path, "JPEG 2000")
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    tile, height = frame.index(b"\xff\x90\x00\x0a"), int.from_bytes(frame[12:16], "big")
    comment = b"\xff\x64\x00\x10\x00\x01" + frame[tile : tile + 4] + b"\0\1" + frame[tile + 6 : tile + 12]
    two_tiles = frame[:28] + (height // 2).to_bytes(4, "big") + frame[32:tile] + comment + frame[tile:]
    dataset.PixelData = encapsulate([two_tiles])
    dataset.save_as(path)
    refused(path, "its compressed pixels are cut short: tiles, packets or the end are missing")


@pytest.mark.parametrize("padding", [b"\0", b"\xff", b"\0\0\0"])
def test_a_frame_may_be_padded(tmp_path: Path, write_series, padding: bytes) -> None:
    """Encoders of the nineties fill an odd frame with 0xFF, not with 0."""
    path = write_series(tmp_path / "s", DATA[:, :, :1], AXIAL, BitsStored=12, HighBit=11)[0]
    expected = read_volume(path).data
    dataset = compress(path, "JPEG-LS")
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([frame.rstrip(b"\0") + padding])
    dataset.save_as(path)
    np.testing.assert_array_equal(read_volume(path).data, expected)


@pytest.mark.parametrize("has_table", [True, False])
@pytest.mark.parametrize("name", SYNTAXES)
def test_a_second_frame_is_not_dropped(tmp_path: Path, write_series, refused, name: str, has_table: bool) -> None:
    path = write_series(tmp_path / "s", DATA[:, :, :1], AXIAL, BitsStored=12, HighBit=11)[0]
    dataset = compress(path, name)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([frame, frame], has_bot=has_table)
    dataset.save_as(path)
    refused(path, "has more pixels than its header names")
    if name != "RLE":  # which has no end
        dataset.PixelData = encapsulate([frame.rstrip(b"\0") + frame])
        dataset.save_as(path)
        refused(path, "has more pixels than its header names")


@pytest.mark.parametrize("change", [{"Rows": 39}, {"Columns": 47}, {"Rows": 20}])
def test_rle_has_no_more_pixels_than_its_header_says(
    tmp_path: Path, write_series, edit_dicom, refused, change: dict[str, int]
) -> None:
    path = write_series(tmp_path / "s", DATA[:, :, :1], AXIAL)[0]
    compress(path, "RLE")
    edit_dicom(path, **change)
    refused(path, "has more pixels than its header names")


@pytest.mark.parametrize("padding", [b"\0", b"\0\0", b"\x80\0", b"\0\0\0\0"])
def test_rle_may_be_padded(tmp_path: Path, write_series, padding: bytes) -> None:
    path = write_series(tmp_path / "s", DATA[:, :, :1], AXIAL)[0]
    expected = read_volume(path).data
    dataset = compress(path, "RLE")
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([frame + padding])
    dataset.save_as(path)
    np.testing.assert_array_equal(read_volume(path).data, expected)


@pytest.mark.parametrize("name", ["JPEG-LS", "JPEG 2000"])
def test_values_of_more_bits_than_the_header_says_do_not_wrap(
    tmp_path: Path, write_series, edit_dicom, refused, name: str
) -> None:
    path = write_series(tmp_path / "s", DATA[:, :, :1], AXIAL, BitsStored=12, HighBit=11)[0]
    expected = read_volume(path).data
    compress(path, name)
    edit_dicom(path, BitsStored=10, HighBit=9)
    np.testing.assert_array_equal(read_volume(path).data, expected)  # no value is above 2^10
    edit_dicom(path, BitsStored=8, HighBit=7)
    refused(path, "its compressed pixels have more than the 8 bits that BitsStored says")
    np.testing.assert_array_equal(read_volume(path, choices={"dicom-bits": "allocated"}).data, expected)


@pytest.mark.parametrize(
    ("edit", "rule"),
    [
        (lambda frame: frame[: len(frame) // 2], "cut short: tiles, packets or the end are missing"),
        (lambda frame: frame.replace(b"\xff\xf7", b"\xff\xc2"), "must have the 40 × 48 pixels of the header"),
        (lambda frame: frame.replace(b"\x0c\0\x28\0\x30\1", b"\x0c\0\x28\0\x30\3"), "got 3 components of 12 bits"),
        (lambda frame: frame.replace(b"\x0c\0\x28\0\x30\1", b"\x11\0\x28\0\x30\1"), "got 1 components of 17 bits"),
    ],
)
def test_a_stream_is_whole_grey_sequential_and_of_the_bits_of_its_header(
    tmp_path: Path, write_series, refused, edit: Callable[[bytes], bytes], rule: str
) -> None:
    path = write_series(tmp_path / "s", DATA[:, :, :1], AXIAL, BitsStored=12, HighBit=11)[0]
    dataset = compress(path, "JPEG-LS")
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    assert edit(frame) != frame
    dataset.PixelData = encapsulate([edit(frame)])
    dataset.save_as(path)
    refused(path, rule)


def test_a_stream_that_takes_more_memory_than_its_pixels_need_ends_and_the_next_is_decoded() -> None:
    """The decoder's process may have what the pixels of the header need, and the stream says 16384 × 16384."""
    import struct

    size = struct.pack(">HHIIIIIIIIH", 41, 0, 16384, 16384, 0, 0, 16384, 16384, 0, 0, 1) + bytes([15, 1, 1])
    coding = bytes.fromhex("ff52000c00000001000503030000ff5c0013") + bytes(17)
    tile = bytes.fromhex("ff90000a0000") + bytes(4) + b"\0\1\xff\x93" + b"\x80" * 64 + b"\xff\xd9"
    request = _request_of(SYNTAXES["JPEG 2000"], bits_stored=16)
    with pytest.raises(DecodingError):
        DECODER.decode(request, encapsulate([b"\xff\x4f\xff\x51" + size + coding + tile]))
    assert DECODER._process is not None
    status = Path(f"/proc/{DECODER._process.pid}/status")
    peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text() if status.exists() else "")
    assert peak is None or int(peak[1]) < 2**20  # a gigabyte; it may have died of its limit
    dataset = pydicom.dcmread(pydicom.data.get_testdata_file("JPEG2000.dcm", download=False))
    syntax = dataset.file_meta.TransferSyntaxUID
    request = replace(request, rows=dataset.Rows, columns=dataset.Columns, syntax=syntax)
    assert DECODER.decode(request, dataset.PixelData).size == dataset.Rows * dataset.Columns


def test_a_reply_that_nobody_waits_for_is_not_that_to_the_next_request(
    tmp_path: Path, write_series, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a notebook, whose process goes on."""
    first, second = write_series(tmp_path / "s", DATA[:, :, :2], AXIAL, BitsStored=12, HighBit=11)
    pixels = [compress(path, "JPEG-LS").PixelData for path in (first, second)]
    decoder, read = Decoder(), decode._read

    def interrupted(_: object) -> None:
        monkeypatch.setattr(decode, "_read", read)
        raise KeyboardInterrupt

    monkeypatch.setattr(decode, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decoder.decode(_request(first), pixels[0])
    expected = Decoder().decode(_request(second), pixels[1])
    np.testing.assert_array_equal(decoder.decode(_request(second), pixels[1]), expected)


@pytest.mark.parametrize(("name", "side"), [("RLE", 2048), ("JPEG-LS", 16384), ("JPEG 2000", 16384)])
def test_more_pixels_than_compressed_bytes_can_hold_are_refused(
    tmp_path: Path, write_series, name: str, side: int, refused
) -> None:
    path = write_series(tmp_path / "s", DATA[:, :, :1], AXIAL)[0]
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = SYNTAXES[name]
    dataset.Rows = dataset.Columns = side
    dataset.PixelData = encapsulate([bytes(400)])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path)
    refused(path, "compressed bytes are there")


def test_the_slices_of_a_series_share_what_compressed_pixels_may_hold(tmp_path: Path, write_series, refused) -> None:
    """Each of 33 MB in some hundred bytes, as one alone may be: two fit, and the third is refused undecoded."""
    side = 5792
    paths = write_series(tmp_path / "s", np.zeros((4, 4, 8), np.uint8), AXIAL)
    frame = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.uint8)).save(frame, "JPEG2000", irreversible=False)
    stream = frame.getvalue()[frame.getvalue().find(b"\xff\x4f\xff\x51") :]
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = SYNTAXES["JPEG 2000"]
        dataset.Rows = dataset.Columns = side
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].VR = "OB"
        dataset.save_as(path)
    assert read_volume(paths[0]).data.size == side**2
    refused(tmp_path / "s", rf"{paths[2].name}: its header says 33,547,264 bytes of pixels, and \d+ compressed bytes")


@pytest.mark.parametrize("bits", [8, 16])
def test_a_stream_with_a_sign_is_none_without(tmp_path: Path, write_series, bits: int, refused) -> None:
    path = write_series(tmp_path / "s", DATA[:, :, :1].astype(f"u{bits // 8}"), AXIAL)[0]
    compress(path, "JPEG 2000")
    dataset = pydicom.dcmread(path)
    frame = bytearray(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    frame[42] |= 0x80  # the sign in SIZ: values of the stream are lower by half of the range
    dataset.PixelData = encapsulate([bytes(frame)])
    dataset.save_as(path)
    refused(path, "its compressed pixels have a sign, and PixelRepresentation says that they have none: convert")
    dataset.PixelRepresentation = 1
    dataset.save_as(path)
    assert read_volume(path).data.min() < 0
