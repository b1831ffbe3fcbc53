"""Hostile files, made when they are needed: each with the attack and whether it is to be refused or only survived."""

import gzip
import io
import json
import os
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

AFFINE = np.diag([-1.5, 1.5, 5.0, 1.0])
PIXELS = np.random.default_rng(0).integers(0, 900, (12, 10, 4)).astype(np.int16)


@dataclass(frozen=True)
class Hostile:
    """One file. refused: `attunet inspect` must refuse it; otherwise any answer is right that comes in time and
    memory.
    """

    name: str
    attack: str
    make: Callable[[Path], object]
    refused: bool = True


CORPUS: list[Hostile] = []


def hostile(
    name: str, attack: str, *, refused: bool = True
) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    def add(make: Callable[[Path], object]) -> Callable[[Path], object]:
        CORPUS.append(Hostile(name, attack, make, refused))
        return make

    return add


def nifti(data: np.ndarray = PIXELS, affine: np.ndarray = AFFINE) -> bytearray:
    return bytearray(nib.Nifti1Image(data, affine).to_bytes())


def patched(offset: int, form: str, *values: object) -> bytes:
    raw = nifti()
    struct.pack_into("<" + form, raw, offset, *values)
    return bytes(raw)


def add_nifti(name: str, attack: str, data: Callable[[], bytes], *, refused: bool = True) -> None:
    CORPUS.append(Hostile(f"{name}.nii", attack, lambda path: path.write_bytes(data()), refused))


# NIfTI-1 header offsets: dim 40 (8 int16), datatype 70, bitpix 72, pixdim 76 (8 float32), vox_offset 108, scl_slope
# 112, xyzt_units 123, qform_code 252, sform_code 254, srow_x 280.
add_nifti(
    "dimensions-of-a-petabyte",
    "claims more voxels than the file holds",
    lambda: patched(40, "4h", 3, 32767, 32767, 32767),
)
add_nifti("negative-dimension", "a length below zero", lambda: patched(40, "4h", 3, -5, 10, 4))
add_nifti("no-dimension", "a length of zero", lambda: patched(40, "4h", 3, 0, 10, 4))
add_nifti("eight-dimensions", "more axes than the format has", lambda: patched(40, "h", 8))
add_nifti("truncated-header", "ends inside the header", lambda: bytes(nifti()[:200]))
add_nifti("truncated-data", "ends inside the voxels", lambda: bytes(nifti()[:-100]))
add_nifti("complex-voxels", "a type that is no image", lambda: bytes(nifti(PIXELS.astype(np.complex64))))
add_nifti("unknown-type", "a type that does not exist", lambda: patched(70, "hh", 4321, 16))
add_nifti("affine-of-nan", "geometry that is no number", lambda: patched(280, "4f", *[np.nan] * 4))
add_nifti("affine-of-zeros", "geometry without extent", lambda: patched(280, "12f", *[0.0] * 12))
add_nifti("spacing-of-infinity", "a spacing that is no number", lambda: patched(280, "f", np.inf))
add_nifti("offset-behind-the-end", "voxels that begin behind the file", lambda: patched(108, "f", 1e9))
add_nifti("slope-of-nan", "a scale that is no number", lambda: patched(112, "ff", np.nan, 1.0), refused=False)
add_nifti("slope-of-infinity", "a scale without bound", lambda: patched(112, "ff", np.inf, 0.0), refused=False)
add_nifti("odd-codes", "codes of units and of geometry that do not exist", lambda: odd_codes(), refused=False)
add_nifti(
    "columns-of-one-voxel",
    "30,000 columns of one voxel: cheap to send, dear to compute",
    lambda: amplified((30_000, 1, 1)),
    refused=False,
)
add_nifti("slices-of-one-voxel", "40,000 slices of 1 × 1", lambda: amplified((1, 1, 30_000)), refused=False)
add_nifti(
    "pixels-of-400-mm",
    "a slice of 40 m",
    lambda: bytes(nifti(PIXELS, np.diag([-4000.0, 4000.0, 5.0, 1.0]))),
    refused=False,
)


def odd_codes() -> bytes:
    raw = nifti()
    raw[123] = 7
    struct.pack_into("<hh", raw, 252, 128, 77)
    return bytes(raw)


def amplified(shape: tuple[int, int, int]) -> bytes:
    return bytes(nifti(np.ones(shape, np.uint8)))


@hostile("bomb.nii.gz", "4 GB of zeros in 4 MB")
def _(path: Path) -> None:
    header = patched(40, "4h", 3, 1290, 1290, 1290)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header)
        for _ in range(64):
            file.write(bytes(2**20))


@hostile("cut.nii.gz", "a gzip stream that ends early")
def _(path: Path) -> None:
    path.write_bytes(gzip.compress(bytes(nifti()))[:-20])


@hostile("members.nii.gz", "500,000 members with nothing in them")
def _(path: Path) -> None:
    path.write_bytes(gzip.compress(b"") * 500_000 + gzip.compress(bytes(nifti())))


@hostile("name.nii.gz", "a name of 32 MB in the header of gzip", refused=False)
def _(path: Path) -> None:
    content = gzip.compress(bytes(nifti()))
    path.write_bytes(content[:3] + b"\x08" + content[4:10] + b"a" * 2**25 + b"\0" + content[10:])


@hostile("plain.nii.gz", "no gzip at all behind that name", refused=False)
def _(path: Path) -> None:
    path.write_bytes(bytes(nifti()))


def add_pair(attack: str, matrix: Callable[[Path], object]) -> None:
    """An Analyze pair with a third file of SPM's, which is none of the image."""

    def make(path: Path) -> None:
        nib.save(nib.AnalyzeImage(PIXELS, AFFINE), path)
        matrix(path.with_suffix(".mat"))

    CORPUS.append(Hostile(f"pair-with-a-matrix-{attack}.hdr", f"a third file that is a {attack}", make, False))


add_pair("pipe", os.mkfifo)
add_pair("device", lambda path: path.symlink_to("/dev/zero"))
add_pair("noise", lambda path: path.write_bytes(bytes(200)))


def dataset():  # type: ignore[no-untyped-def]
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    one = Dataset()
    one.SOPClassUID, one.SOPInstanceUID, one.SeriesInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3.1", "1.2.3"
    one.Modality, one.Rows, one.Columns = "MR", 8, 8
    one.PixelSpacing, one.ImageOrientationPatient, one.ImagePositionPatient = [1.5, 1.5], [1, 0, 0, 0, 1, 0], [0, 0, 0]
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit, one.PixelRepresentation, one.SamplesPerPixel, one.PhotometricInterpretation = 15, 0, 1, "MONOCHROME2"
    one.PixelData = bytes(128)
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return one


def add_dicom(name: str, attack: str, change: Callable[..., object], *, refused: bool = True) -> None:
    def make(path: Path) -> None:
        import warnings

        one = dataset()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            change(one)
            path.mkdir()
            one.save_as(path / "1.dcm", enforce_file_format=True)

    CORPUS.append(Hostile(f"series-{name}", attack, make, refused))


def elements(**values: object) -> Callable[..., None]:
    def change(one) -> None:  # type: ignore[no-untyped-def]
        for keyword, value in values.items():
            setattr(one, keyword, value)

    return change


add_dicom("of-a-terabyte", "more pixels than bytes", elements(Rows=65535, Columns=65535))
add_dicom("of-many-frames", "a number of frames without bound", elements(NumberOfFrames="2147483647"))
add_dicom("without-pixels", "no pixel data", lambda one: delattr(one, "PixelData"))
add_dicom("without-geometry", "no orientation", lambda one: delattr(one, "ImageOrientationPatient"))
add_dicom("with-spacing-of-zero", "a spacing of zero", elements(PixelSpacing=[0, 0]))
add_dicom("with-parallel-axes", "axes that span no plane", elements(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]))
add_dicom("with-odd-bits", "a number of bits that no pixel has", elements(BitsAllocated=24, BitsStored=24))
add_dicom("with-deep-sequences", "a thousand nested sequences", lambda one: nested(one), refused=False)


def nested(one) -> None:  # type: ignore[no-untyped-def]
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    inner = Dataset()
    for _ in range(200):
        outer = Dataset()
        outer.ReferencedImageSequence = Sequence([inner])
        inner = outer
    one.ReferencedImageSequence = Sequence([inner])


def compressed(syntax: str, content: bytes, side: int = 32768) -> Callable[..., None]:
    """A slice of gigabytes in a few hundred compressed bytes."""

    def change(one) -> None:  # type: ignore[no-untyped-def]
        from pydicom.encaps import encapsulate

        one.Rows = one.Columns = side
        one.file_meta.TransferSyntaxUID = syntax
        one.PixelData = encapsulate([content])
        one["PixelData"].VR = "OB"

    return change


def jpeg_2000(side: int) -> bytes:
    size = struct.pack(">HHIIIIIIIIH", 41, 0, side, side, 0, 0, side, side, 0, 0, 1) + bytes([15, 1, 1])
    coding = bytes.fromhex("ff52000c00000001000503030000ff5c0013") + bytes(17)
    tile = bytes.fromhex("ff90000a0000") + bytes(4) + b"\0\1\xff\x93" + b"\x80" * 64 + b"\xff\xd9"
    return b"\xff\x4f\xff\x51" + size + coding + tile


def jpeg_ls(side: int) -> bytes:
    frame = b"\xff\xf7" + struct.pack(">HBHHB", 11, 16, side, side, 1) + b"\1\x11\0"
    return b"\xff\xd8" + frame + b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\1\0\0\0\0" + bytes(100) + b"\xff\xd9"


RLE_FRAME = struct.pack("<16I", 2, 64, 66, *[0] * 13) + b"\x81\x00" * 2
add_dicom("bomb-of-rle", "2 GB of pixels in 68 bytes", compressed("1.2.840.10008.1.2.5", RLE_FRAME))
add_dicom("bomb-of-jpeg-2000", "2 GB of pixels in 200 bytes", compressed("1.2.840.10008.1.2.4.90", jpeg_2000(32768)))
add_dicom("bomb-of-jpeg-ls", "2 GB of pixels in 200 bytes", compressed("1.2.840.10008.1.2.4.80", jpeg_ls(32768)))


def dicom_head(syntax: str) -> bytes:
    return bytes(128) + b"DICM" + b"\2\0\x10\0UI" + struct.pack("<H", len(syntax)) + syntax.encode()


@hostile("deflated.dcm", "3 GB of zeros in a deflated data set of 3 MB")
def _(path: Path) -> None:
    deflate = zlib.compressobj(9, wbits=-15)
    zeros = deflate.compress(bytes(2**20)) + deflate.flush(zlib.Z_FULL_FLUSH)  # whole blocks, which can be repeated
    path.write_bytes(dicom_head("1.2.840.10008.1.2.1.99") + zeros * 3000 + deflate.flush())


@hostile("items.dcm", "a million items that hold nothing")
def _(path: Path) -> None:
    sequence = struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 2**32 - 1)
    path.write_bytes(dicom_head("1.2.840.10008.1.2.1\0") + sequence + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 10**6)


add_dicom("of-shared-groups", "3,000 sequences that 2,000 frames share", lambda one: shared(one), refused=False)


def shared(one) -> None:  # type: ignore[no-untyped-def]
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    one.NumberOfFrames, one.Rows, one.Columns, one.PixelData = 2000, 1, 1, bytes(4000)
    one.PerFrameFunctionalGroupsSequence = Sequence([Dataset() for _ in range(2000)])
    group = Dataset()
    for number in range(3000):
        group.add_new((0x0041, 0x1000 + number), "SQ", Sequence([Dataset()]))
    one.SharedFunctionalGroupsSequence = Sequence([group])


@hostile("series-broken-bytes", "random bytes behind a DICOM preamble")
def _(path: Path) -> None:
    path.mkdir()
    (path / "1.dcm").write_bytes(bytes(128) + b"DICM" + np.random.default_rng(1).bytes(5000))


@hostile("DICOMDIR", "a directory file that names files elsewhere")
def _(path: Path) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset

    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID, one.file_meta.MediaStorageSOPClassUID = (
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.3.10",
    )
    one.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    record = Dataset()
    record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", ["..", "..", "etc", "passwd"]
    one.FileSetID, one.DirectoryRecordSequence = "X", [record]
    one.save_as(path, enforce_file_format=True)


def png(width: int, height: int, body: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def add_bytes(name: str, attack: str, data: Callable[[], bytes], *, refused: bool = True) -> None:
    CORPUS.append(Hostile(name, attack, lambda path: path.write_bytes(data()), refused))


add_bytes("bomb.png", "10 gigapixels of zeros", lambda: png(100_000, 100_000, zlib.compress(bytes(2**24), 9)))
add_bytes("cut.png", "pixels that end early", lambda: png(64, 64, zlib.compress(bytes(64 * 65))[:10]))
add_bytes("no-pixels.png", "a size of zero", lambda: png(0, 10, zlib.compress(b"")))
add_bytes("loop.tif", "a directory of images that leads back to itself", lambda: tiff_loop(), refused=False)
add_bytes("outside.tif", "strips that lie behind the file", lambda: tiff(offset=2**31))
add_bytes("bomb.tif", "a size of 4 gigapixels", lambda: tiff(width=65_000, height=65_000))
add_bytes(
    "noise.jpg", "random bytes behind a JPEG marker", lambda: b"\xff\xd8\xff\xe0" + np.random.default_rng(2).bytes(3000)
)
add_bytes(
    "cut.bmp",
    "a header alone",
    lambda: b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 70000, -70000, 1, 24, 0, 0, 0, 0, 0, 0),
)


NRRD = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 12 10 4\nendian: little\n"
META = b"NDims = 3\nBinaryData = True\nDimSize = 12 10 4\nElementType = MET_SHORT\n"
SECRET = "../outside.raw"  # would be read, were it followed


def nrrd(*lines: str, head: bytes = NRRD, body: bytes = PIXELS.tobytes()) -> bytes:
    return head + "".join(f"{line}\n" for line in lines).encode() + b"\n" + body


def meta(*lines: str, data_file: str = "LOCAL", head: bytes = META, body: bytes = PIXELS.tobytes()) -> bytes:
    return head + "".join(f"{line}\n" for line in (*lines, f"ElementDataFile = {data_file}")).encode() + body


def add_itk(name: str, attack: str, data: Callable[[], bytes], *, refused: bool = True) -> None:
    """A NRRD or MetaImage; beside the folder lies a file that is none of the image."""

    def make(path: Path) -> None:
        path.write_bytes(data())
        path.with_name("LIST").write_bytes(PIXELS.tobytes())
        if name.startswith("pipe"):
            os.mkfifo(path.with_name("pipe.raw"))
        if name.startswith("link"):
            path.with_name("link.raw").symlink_to("/dev/zero")

    CORPUS.append(Hostile(name, attack, make, refused))


def resized(head: bytes, sizes: str) -> bytes:
    return head.replace(b"12 10 4", sizes.encode())


GZIPPED = "encoding: gzip"
add_itk("short.nrrd", "more voxels than bytes", lambda: nrrd("encoding: raw", head=resized(NRRD, "30000 30000 9")))
add_itk("short.mha", "more voxels than bytes", lambda: meta(head=resized(META, "30000 30000 9")))
add_itk(
    "bomb.nrrd",
    "1.6 GB of zeros in 16 MB, a size of 2 GB",
    lambda: nrrd(GZIPPED, head=resized(NRRD, "2000 2000 250"), body=gzip.compress(bytes(2**24), 1)),
)
add_itk(
    "bomb.mha",
    "2 GB in some kilobytes",
    lambda: meta("CompressedData = True", head=resized(META, "2000 2000 250"), body=zlib.compress(bytes(2**24), 9)),
)
add_itk("negative.nrrd", "a length below zero", lambda: nrrd("encoding: raw", head=resized(NRRD, "-12 10 4")))
add_itk("many-axes.nrrd", "more axes than lengths", lambda: nrrd(head=NRRD.replace(b"dimension: 3", b"dimension: 16")))
add_itk("many-axes.mha", "axes without bound", lambda: meta(head=META.replace(b"NDims = 3", b"NDims = 99999")))
add_itk(
    "spacing-of-nan.nrrd",
    "a spacing that is no number",
    lambda: nrrd("spacings: nan 1 5", "encoding: raw"),
    refused=False,
)
add_itk("spacing-of-zero.mha", "a spacing of zero", lambda: meta("ElementSpacing = 0 0 0"), refused=False)
add_itk("outside.nhdr", "voxels of a file elsewhere", lambda: nrrd("encoding: raw", f"data file: {SECRET}"))
add_itk("absolute.mhd", "voxels of a file of the system", lambda: meta(data_file="/etc/passwd"))
add_itk("pipe.mhd", "voxels of a pipe", lambda: meta(data_file="pipe.raw"))
add_itk("link.nhdr", "voxels of a link to a device", lambda: nrrd("encoding: raw", "data file: link.raw"))
add_itk("list.mhd", "a list of files elsewhere", lambda: meta(data_file=f"LIST\n{SECRET}"), refused=False)
add_itk("pattern.nhdr", "a pattern of files elsewhere", lambda: nrrd("data file: ../outside%d.raw 1 4 1"))
add_itk(
    "outside-behind-many-lines.nrrd",
    "voxels of a file elsewhere, named behind a thousand lines",
    lambda: nrrd("encoding: raw", *["# line"] * 2000, f"data file: {SECRET}"),
)
add_itk(
    "outside-behind-a-return.nrrd",
    "voxels of a file elsewhere, in a line that a CR alone begins",
    lambda: nrrd("encoding: raw", f"# line\rdata file: {SECRET}"),
    refused=False,
)
add_itk("outside-twice.mha", "two files, of which the reader takes the second", lambda: two_files(), refused=False)
add_itk("long.nrrd", "a header of 4 MB", lambda: nrrd("encoding: raw", *["# " + "x" * 9000] * 450))
add_itk("long.mha", "a header of 4 MB", lambda: meta(*["Comment = " + "x" * 9000] * 450))


def two_files() -> bytes:
    return meta(f"elementdatafile = LOCAL\nElementDataFile = {SECRET}")


def tiff(*, width: int = 8, height: int = 8, offset: int = 8 + 2 + 12 * 8 + 4, following: int = 0) -> bytes:
    entries = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, offset),
        (278, 4, height),
        (279, 4, 64),
    ]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return (
        b"II*\0"
        + struct.pack("<I", 8)
        + struct.pack("<H", len(entries))
        + body
        + struct.pack("<I", following)
        + bytes(64)
    )


def tiff_loop() -> bytes:
    return tiff(following=8)


add_bytes("pages.tif", "20,000 pages that share one strip of pixels", lambda: b"".join(tiff_pages(20_000)))
add_bytes("chunks.png", "a million chunks of nothing", lambda: chunky_png(1_000_000))
add_bytes("markers.jpg", "two million comments of nothing", lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 2_000_000)


add_bytes("tile.tif", "8 × 8 pixels in a tile of a gigapixel", lambda: tiff_of_a_tile(32_000))
add_bytes("scans.jpg", "4,000 scans over 36 megapixels", lambda: scans(4_000))


def tiff_of_a_tile(side: int) -> bytes:
    data, whole = b"\x80\0\x00\x40\x40", tiff()
    tags = ((322, side), (323, side), (324, 8 + 2 + 12 * 9 + 4), (325, len(data)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = whole[:10] + whole[10:82].replace(struct.pack("<HHII", 259, 3, 1, 1), struct.pack("<HHII", 259, 3, 1, 5))
    return head[:8] + struct.pack("<H", 9) + head[10:70] + entries + bytes(4) + data


def scans(number: int) -> bytes:
    """A progressive JPEG, whose scans of some bytes each go through all of its blocks."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("L", (6000, 6000)).save(out, "JPEG", progressive=True)
    whole = out.getvalue()
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * number + whole[-2:]


def tiff_pages(number: int) -> Iterator[bytes]:
    page = tiff()[8:-68]
    yield tiff()[:8]
    for at in range(1, number + 1):
        yield page + struct.pack("<I", 8 + at * (len(page) + 4) if at < number else 0)


def chunky_png(number: int) -> bytes:
    whole = png(64, 64, zlib.compress(bytes(64 * 65)))
    return whole[:33] + (struct.pack(">I", 0) + b"abCd" + struct.pack(">I", zlib.crc32(b"abCd"))) * number + whole[33:]


def zip_of(
    entries: dict[str, bytes], *, attributes: dict[str, int] | None = None, compression: int = zipfile.ZIP_DEFLATED
) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            info.external_attr = (attributes or {}).get(name, 0o644) << 16
            archive.writestr(info, data)
    return out.getvalue()


def tar_of_nothing(number: int) -> bytes:
    return gzip.compress(b"".join(tarfile.TarInfo(f"{n}.nii").tobuf() for n in range(number)) + bytes(1024), 1)


def tar_of_headers(number: int, kind: bytes) -> bytes:
    """Members behind headers of a megabyte each, which say the same again and again."""
    values = b"6 a=b\n" * (2**20 // 6)
    described = tarfile.TarInfo("h")
    described.size, described.type = len(values), kind
    head = described.tobuf() + values + bytes(-len(values) % 512)
    return gzip.compress(b"".join(head + tarfile.TarInfo(f"{n}.nii").tobuf() for n in range(number)) + bytes(1024), 9)


def chained_code_streams(number: int) -> bytes:
    """JPEG 2000 whose comments look like another code stream, the segments of which end in the next one."""
    size = struct.pack(">HHIIIIIIIIH", 41, 0, 64, 64, 0, 0, 64, 64, 0, 0, 1) + b"\7\1\1"
    step, last = (b"\xff\x51" + struct.pack(">HH8I", length, 0, *[1, 1, 0, 0] * 2) for length in (42, 36))
    head = b"\xff\x4f\xff\x51" + size + b"\xff\x64\0\x08jp2c\xff\x4f"
    tile = b"\xff\x90\0\x0a\0\0" + struct.pack(">I", 14) + b"\0\1\xff\x93\xff\xd9"
    return head + (step + b"jp2c\xff\x4f") * number + last + tile


def tiny_precincts(side: int) -> bytes:
    size = struct.pack(">HHIIIIIIIIH", 41, 0, side, side, 0, 0, side, side, 0, 0, 1) + b"\7\1\1"
    coding = bytes.fromhex("ff52000d 01 00000100 0004040001 00 ff5c00044048")
    return b"\xff\x4f\xff\x51" + size + coding + bytes.fromhex("ff90000a 0000 0000000e 0001 ff93 ffd9")


add_bytes("precincts.j2k", "16 million precincts in 80 bytes", lambda: tiny_precincts(4096))
add_bytes("headers.tar.gz", "60 MB of headers in 100 KB", lambda: tar_of_headers(60, tarfile.XHDTYPE))
add_bytes("streams.j2k", "20,000 code streams, each within the last one", lambda: chained_code_streams(20_000))
add_bytes(
    "bomb.pgm.gz",
    "1 GB behind one pixel",
    lambda: gzip.compress(b"P5 1 1 255\n\x01") + gzip.compress(bytes(2**24)) * 64,
)
add_bytes("slip.zip", "a path that leaves the folder", lambda: zip_of({"../../escaped.nii": bytes(nifti())}))
add_bytes("absolute.zip", "an absolute path", lambda: zip_of({"/tmp/attunet-escaped.nii": bytes(nifti())}))
add_bytes("link.zip", "a symbolic link", lambda: zip_of({"a.nii": b"/etc/passwd"}, attributes={"a.nii": 0o120777}))
add_bytes("device.zip", "a device file", lambda: zip_of({"a.nii": b""}, attributes={"a.nii": 0o020666}))
add_bytes("bomb.zip", "300 MB of zeros in a file", lambda: zip_of({"a.nii": bytes(300_000_000)}))
add_bytes("cut.zip", "no directory at the end", lambda: zip_of({"a.nii": bytes(nifti())})[:-30])
add_bytes("many.zip", "50,000 files with nothing in them", lambda: zip_of({f"{n}.nii": b"" for n in range(50_000)}))
add_bytes("many.tar.gz", "60,000 files with nothing in them", lambda: tar_of_nothing(60_000))
add_bytes("empty.zip", "nothing in it", lambda: zip_of({}))
add_bytes("names.zip", "control characters in a name", lambda: zip_of({"a\x1b[31m.nii": bytes(nifti())}))


def add_store(name: str, attack: str, change: Callable[[Path], object]) -> None:
    def make(path: Path) -> None:
        path.mkdir()
        (path / "splits.json").write_text('{"folds": [["a"]]}')
        change(path)

    CORPUS.append(Hostile(f"store-{name}", attack, make, True))


add_store("nested", "a manifest nested 100,000 deep", lambda path: (path / "manifest.json").write_text("[" * 100_000))
add_store("of-a-list", "a manifest of another type", lambda path: (path / "manifest.json").write_text("[1, 2]"))
add_store(
    "of-numbers",
    "numbers without bound",
    lambda path: (path / "manifest.json").write_text('{"schema": ' + "9" * 100_000 + "}"),
)
add_store(
    "with-binary", "bytes that are no text", lambda path: (path / "manifest.json").write_bytes(b"\xff\xfe\x00\x80")
)


@cache
def prepared() -> tempfile.TemporaryDirectory[str]:
    """A folder with a store of two generated cases."""
    from attunet.config import DataConfig
    from attunet.preparation.prepare import prepare

    folder = tempfile.TemporaryDirectory()
    source = Path(folder.name, "source")
    source.mkdir()
    for number in range(2):
        for part, data in (("src", PIXELS + number), ("mask", 63 * (500 + number < PIXELS).astype(np.uint8))):
            (source / f"0{number}-T2SPIR-{part}.nii").write_bytes(nifti(data))
    prepare(source, Path(folder.name, "store"), DataConfig(), folds=2)
    return folder


def add_whole_store(name: str, attack: str, change: Callable[[Path, dict[str, Any]], object]) -> None:
    """A store in which `change` alters a file or the manifest's first case."""

    def make(path: Path) -> None:
        shutil.copytree(Path(prepared().name, "store"), path)
        manifest = json.loads((path / "manifest.json").read_text())
        change(path / "cases" / manifest["cases"][0]["case"], manifest["cases"][0])
        (path / "manifest.json").write_text(json.dumps(manifest))

    CORPUS.append(Hostile(f"whole-store-{name}", attack, make, True))


def save_like(path: Path, value: float) -> None:
    np.save(path, np.full_like(np.load(path), value))


add_whole_store("of-slices", "more slices than any disk holds", lambda _, case: case.update(num_slices=2**40))
add_whole_store("of-voxels", "a shape beyond all bounds", lambda _, case: case.update(native_shape=[2**31] * 3))
add_whole_store("without-images", "a case without a file", lambda _, case: case.update(image_files=[]))
add_whole_store("of-zeros", "geometry without extent", lambda _, case: case.update(affine=[[0] * 4] * 4))
add_whole_store(
    "outside",
    "a file outside of the source",
    lambda _, case: case.update(image_files=[{"file": "../../../dev/zero", "sha256": "0"}]),
)
add_whole_store("with-nan", "an image of NaN", lambda folder, _: save_like(folder / "image.npy", np.nan))
add_whole_store("with-labels", "other labels", lambda folder, _: save_like(folder / "label.npy", 200))
add_whole_store(
    "with-a-pipe",
    "a pipe in the place of an array",
    lambda folder, _: ((folder / "image.npy").unlink(), os.mkfifo(folder / "image.npy")),
)


def add_run(name: str, attack: str, state: bytes, weights: bytes, manifest: str = "") -> None:
    def make(path: Path) -> None:
        import hashlib

        folder = path / "checkpoints" / "step-0000000001"
        folder.mkdir(parents=True)
        files = {"state.json": state, "average.safetensors": weights}
        for file, data in files.items():
            (folder / file).write_bytes(data)
        hashes = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
        (folder / "manifest.json").write_text(manifest or json.dumps({"schema": 1, "sha256": hashes}))

    CORPUS.append(Hostile(f"run-{name}", attack, make, True))


add_run("of-a-list", "a state of another type", b"[]", b"")
add_run("nested", "a state nested 100,000 deep", b"[" * 100_000, b"")
add_run("with-a-lying-header", "weights that claim a terabyte", b'{"schema": 1}', struct.pack("<Q", 2**40) + b"{}")


add_run("with-a-nested-manifest", "a manifest nested 200,000 deep", b"{}", b"", "[" * 200_000)
add_run("with-an-empty-manifest", "a manifest that vouches for no file", b"{}", b"", '{"sha256": {}}')


def add_unending(name: str, attack: str, change: Callable[[Path], object]) -> None:
    """A file of a store or a run that is a pipe or a link to a device, as an unpacked archive can hold:
    reading it never ends.
    """

    def make(path: Path) -> None:
        folder = path if name in ("manifest.json", "splits.json") else path / "checkpoints" / "step-0000000001"
        folder.mkdir(parents=True)
        for file in ("manifest.json", "splits.json", "state.json", "average.safetensors"):
            (folder / file).write_text('{"sha256": {"state.json": "0", "average.safetensors": "0"}, "folds": [["a"]]}')
        (folder / name.removeprefix("run-")).unlink()
        change(folder / name.removeprefix("run-"))

    CORPUS.append(Hostile(f"unending-{name}-{attack}", f"{attack} in the place of a file", make))


for unending in ("manifest.json", "splits.json", "run-manifest.json", "run-state.json", "run-average.safetensors"):
    add_unending(unending, "pipe", os.mkfifo)
    add_unending(unending, "device", lambda path: path.symlink_to("/dev/zero"))


for scan in ("scan", "scan.nii.gz", "scan.dcm", "scan.zip"):
    CORPUS.append(Hostile(f"pipe-{scan}", "a pipe in the place of a scan", os.mkfifo))


def add_annotations(name: str, text: Callable[[], str], *, refused: bool = True) -> None:
    """A folder of two small pictures, with annotations that unpack to gigabytes or take minutes."""

    def make(path: Path) -> None:
        from PIL import Image

        (path / "images").mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.full((64, 64), number, dtype=np.uint8)).save(path / f"images/p{number}.png")
        made = text()
        (path / f"annotations.{'xml' if made.startswith('<') else 'json'}").write_text(made)

    CORPUS.append(Hostile(f"annotations-{name}", "a large mask or many regions in a small file", make, refused))


def coco(segmentation: object, count: int) -> str:
    rows = [{"image_id": number % 2, "category_id": 1, "segmentation": segmentation} for number in range(count)]
    pictures = [{"id": number, "file_name": f"p{number}.png"} for number in range(2)]
    return json.dumps({"images": pictures, "categories": [{"id": 1, "name": "x"}], "annotations": rows})


SIDE = 32768
CVAT_MASK = f'<mask label="x" rle="0,{SIDE**2}" left="0" top="0" width="{SIDE}" height="{SIDE}"/>'
add_annotations("coco", lambda: coco({"size": [SIDE, SIDE], "counts": [0, SIDE**2]}, 20))
add_annotations("coco-text", lambda: coco({"size": [SIDE, SIDE], "counts": "PPPPPP1"}, 20_000))
add_annotations("coco-layers", lambda: coco([[0, 0, 63, 0, 63, 63, 0, 63]], 20_000))
add_annotations(
    "cvat",
    lambda: "<annotations>" + "".join(f'<image name="p{n}.png">{CVAT_MASK}</image>' for n in "01") + "</annotations>",
)
add_annotations(
    "cvat-labels",
    lambda: "<annotations>" + "<label>" * 10_000 + "<name>x</name>" * 10_000 + "</label>" * 10_000 + "</annotations>",
)


def add_artefact(name: str, attack: str, data: Callable[[], bytes]) -> None:
    CORPUS.append(Hostile(f"{name}.onnx", attack, lambda path: path.write_bytes(data()), True))


def model(metadata: str | None, *, external: bool = False, depth: int = 0) -> bytes:
    import onnx
    from onnx import TensorProto, helper

    kind = TensorProto.FLOAT
    slices = helper.make_tensor_value_info("slices", kind, ["n", 1, 16, 16])
    logits = helper.make_tensor_value_info("logits", kind, ["n", 1, 16, 16])
    weight = helper.make_tensor("w", kind, [1], [1.0])
    if external:
        weight.ClearField("float_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="../../../etc/passwd")
    graph = helper.make_graph([helper.make_node("Mul", ["slices", "w"], ["logits"])], "g", [slices], [logits], [weight])
    proto = helper.make_model(graph)
    if metadata is not None:
        helper.set_model_props(proto, {"attunet": metadata})
    return bytes(onnx.ModelProto.SerializeToString(proto))


def with_long_tags() -> bytes:
    """A whole artefact with external data whose tags have a bit beyond the 32 that C++ keeps."""
    from forms import about, graph  # type: ignore[import-not-found]

    from attunet.export.artefact.artefact_file import write_artefact

    tensor = b"\x42\x01w\x10\x01" + b"\xea\x80\x80\x80\x10\x03\x0a\x01x" + b"\xf0\x80\x80\x80\x10\x01"
    inner = b"\x2a" + bytes([len(tensor)]) + tensor
    return write_artefact(graph() + b"\x3a" + bytes([len(inner)]) + inner, about())


add_artefact("without-metadata", "somebody else's model", lambda: model(None))
add_artefact("with-external-data", "weights read from another file", lambda: model("{}", external=True))
add_artefact("with-external-data-behind-a-long-tag", "fields that only C++ sees", with_long_tags)
add_artefact("with-nested-metadata", "metadata nested 100,000 deep", lambda: model("[" * 100_000))
add_artefact("with-other-metadata", "metadata of another type", lambda: model('["attunet"]'))
add_artefact("with-huge-numbers", "a schema without bound", lambda: model('{"schema": ' + "9" * 100_000 + "}"))
add_artefact("of-noise", "random bytes", lambda: np.random.default_rng(3).bytes(10_000))
add_artefact("with-a-lying-length", "a field that claims a terabyte", lambda: b"\x3a" + b"\xff" * 5 + b"\x1f")
