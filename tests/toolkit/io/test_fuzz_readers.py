"""Files that strangers made: whatever bytes they hold, only the project's own error comes out, in one line and in bounded memory."""

import gzip
import io
import json
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from attunet.errors import InputError
from attunet.io.annotations import read_annotations
from attunet.io.archives import extract
from attunet.io.readers import read_mask, read_volume
from attunet.sources.find_cases import find_cases
from attunet.splits import read_splits
from attunet.store import open_store
from attunet.volumes.spec import PreprocessSpec

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("pydicom")
resource = pytest.importorskip("resource")

MOST_MEMORY_KIB = 600_000  # over what the process had before
PIXELS = np.random.default_rng(0).integers(0, 900, (9, 7, 4)).astype(np.int16)
TELLING = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]


def nifti(kind: type) -> bytes:
    return bytes(kind(PIXELS, np.diag([-1.5, 1.5, 7, 1])).to_bytes())


def scaled_nifti() -> bytes:
    raw = nifti(nib.Nifti1Image)
    return raw[:112] + struct.pack("<ff", 0.5, -3) + raw[120:]  # scl_slope, scl_inter


def picture(form: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS[:, :, 0].astype(np.uint8)).save(out, form, **options)
    return out.getvalue()


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a-src.nii", nifti(nib.Nifti1Image))
        opened.writestr("b/c.json", "{}")
    return out.getvalue()


@st.composite
def damaged(draw: st.DrawFn, base: bytes, header: int) -> bytes:
    """A file with a few changes, most of them where its header is."""
    raw = bytearray(base)
    for _ in range(draw(st.integers(1, 5))):
        span = len(raw) if draw(st.integers(0, 3)) == 0 else min(header, len(raw))
        at = draw(st.integers(0, max(span - 1, 0)))
        change = draw(st.sampled_from(["byte", "number", "number", "cut", "insert", "remove"]))
        if change == "byte" and raw:
            raw[at] = draw(st.integers(0, 255))
        elif change == "number":
            width, order = draw(st.sampled_from([2, 4, 8])), draw(st.sampled_from(["little", "big"]))
            raw[at : at + width] = (draw(st.sampled_from(TELLING)) % 2 ** (8 * width)).to_bytes(width, order)
        elif change == "cut":
            del raw[draw(st.integers(0, len(raw))) :]
        elif change == "insert":
            raw[at:at] = draw(st.binary(max_size=20))
        else:
            del raw[at : at + draw(st.integers(1, 30))]
    return bytes(raw)


@st.composite
def png_headers(draw: st.DrawFn) -> bytes:
    """PNG files whose checksums hold, so that what they declare is believed."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = st.sampled_from([0, 1, 5, 300, 12_000, 2**31 - 1, 2**32 - 1])
    small = st.integers(0, 255)
    header = struct.pack(
        ">IIBBBBB", draw(side), draw(side), draw(st.sampled_from([1, 2, 4, 8, 16, 7])), draw(small) % 8, draw(small) % 2, 0, draw(small) % 3
    )
    extra = draw(
        st.sampled_from([b"", chunk(b"PLTE", bytes(6)), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**22))), chunk(b"tRNS", b"\1")])
    )
    body = zlib.compress(draw(st.binary(max_size=400)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def read_any(path: Path) -> None:
    for read in (read_volume, read_mask, lambda p: read_volume(p, channels=None)):
        read(path)


def unzip(path: Path) -> None:
    extract(path, path.with_suffix(".out"), lambda name: True)


def read_store(path: Path) -> None:
    (path.parent / "splits.json").write_text('{"schema": 1, "folds": []}')
    open_store(path.parent)


def dataset_json(path: Path) -> None:
    for name in ("imagesTr", "labelsTr"):
        (path.parent / name).mkdir()
        (path.parent / name / "a.nii").touch()
    find_cases(path.parent)


def series(syntax: str = "1.2.840.10008.1.2.1") -> bytes:
    """One DICOM slice, written once; explicit little endian unless another transfer syntax is given."""
    from pydicom.dataset import Dataset, FileMetaDataset

    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.SeriesInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3", "1.2.4"
    dataset.PatientName = "Doe^Jane"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 7, 9, 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.PixelSpacing, dataset.SliceThickness = ["1.5", "1.5"], "7"
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = ["0", "0", "0"], ["1", "0", "0", "0", "1", "0"]
    dataset.RescaleSlope, dataset.RescaleIntercept = "2", "-5"
    dataset.PixelData = PIXELS[:, :, 0].T.tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def compressed(syntax: str) -> bytes:
    """The slice of `series`, enlarged, in a compressed transfer syntax."""
    from pydicom import dcmread

    dataset = dcmread(io.BytesIO(series()))
    dataset.Rows, dataset.Columns, dataset.PixelRepresentation = 56, 72, 0
    dataset.PixelData = np.repeat(np.repeat(PIXELS[:, :, 0].T, 8, axis=0), 8, axis=1).astype(np.uint16).tobytes()
    dataset.compress(syntax, generate_instance_uid=False)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def written(name: str) -> bytes:
    """A scan as SimpleITK or nibabel writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        if name.endswith(".mgz"):
            nib.save(nib.freesurfer.MGHImage(PIXELS.astype(np.int32), np.eye(4)), path)
        else:
            import SimpleITK

            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(PIXELS.astype(np.int16)), str(path), useCompression="packed" in name)
        return path.read_bytes()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in ("a/b.nii", "c.png"):
            entry = tarfile.TarInfo(name)
            entry.size = 500
            archive.addfile(entry, io.BytesIO(bytes(500)))
    return out.getvalue()


ANNOTATIONS = json.dumps(
    {
        "images": [{"id": 0, "file_name": "a.png", "height": 7, "width": 9}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 4]]},
            {"id": 1, "image_id": 0, "category_id": 1, "segmentation": {"size": [7, 9], "counts": [5, 10, 48]}},
        ],
    }
).encode()
CVAT = (
    b'<?xml version="1.0"?><annotations><image id="0" name="a.png" width="9" height="7"><polygon label="x" points="1,1;5,1;5,4"/>'
    b'<mask label="y" rle="1, 3, 2" left="2" top="2" width="3" height="2"/></image></annotations>'
)


def annotations(path: Path) -> None:
    read_annotations(path, path.with_name("a.png"), (9, 7, 1))


MANIFEST = json.dumps(
    {
        "schema": 2,
        "name": "a",
        "source": "b",
        "cases": [],
        "classes": [{"name": "background", "value": 0}, {"name": "x", "value": 1}],
        "choices": {},
        "grey_levels": [],
        "preprocessing": {
            "spec": PreprocessSpec("LPS", 2, None, (32, 32)).to_json(),
            "postprocessing": {"largest_component": True, "erosion_mm": 2.0},
        },
        "ranges": {"unit": "mm", "spacing": [[1, 2]] * 3, "extent": [[9, 10]] * 3, "std": [[3, 4]], "mean": [[5, 6]]},
    }
).encode()
DESCRIPTION = b'{"labels": {"background": 0, "liver": 1}, "channel_names": {"0": "MRI"}, "training": []}'

# name of the file, what may be in it, what reads it, share of the examples
FORMATS: dict[str, tuple[str, st.SearchStrategy[bytes], Callable[[Path], object], float]] = {
    "nifti-1": ("a.nii", damaged(nifti(nib.Nifti1Image), 352), read_any, 0.16),
    "nifti-1, scaled": ("a.nii", damaged(scaled_nifti(), 352), read_any, 0.08),
    "nifti-2": ("a.nii", damaged(nifti(nib.Nifti2Image), 544), read_any, 0.1),
    "header in gzip": ("a.nii.gz", damaged(nifti(nib.Nifti1Image), 352).map(gzip.compress), read_any, 0.1),
    "gzip": ("a.nii.gz", damaged(gzip.compress(nifti(nib.Nifti1Image)), 30), read_any, 0.06),
    "dicom": ("a.dcm", damaged(series(), 700), read_any, 0.2),
    "dicom, implicit": ("a.dcm", damaged(series("1.2.840.10008.1.2"), 700), read_any, 0.06),
    "png": ("a.png", damaged(picture("PNG"), 60), read_any, 0.04),
    "png headers": ("a.png", png_headers(), read_any, 0.08),
    "tiff": ("a.tif", damaged(picture("TIFF"), 200), read_any, 0.06),
    "tiff lzw": ("a.tif", damaged(picture("TIFF", compression="tiff_lzw"), 1000), read_any, 0.04),
    "jpeg": ("a.jpg", damaged(picture("JPEG"), 700), read_any, 0.06),
    "bmp": ("a.bmp", damaged(picture("BMP"), 60), read_any, 0.02),
    "gif": ("a.gif", damaged(picture("GIF"), 100), read_any, 0.02),
    "dicom, RLE": ("a.dcm", damaged(compressed("1.2.840.10008.1.2.5"), 2000), read_any, 0.06),
    "dicom, JPEG-LS": ("a.dcm", damaged(compressed("1.2.840.10008.1.2.4.80"), 2000), read_any, 0.06),
    "dicom, JPEG 2000": ("a.dcm", damaged(compressed("1.2.840.10008.1.2.4.90"), 2000), read_any, 0.06),
    "dicom without preamble": ("a.dcm", damaged(series()[132:], 600), read_any, 0.04),
    "nrrd": ("a.nrrd", damaged(written("a.nrrd"), 300), read_any, 0.06),
    "nrrd, packed": ("a.nrrd", damaged(written("packed.nrrd"), 300), read_any, 0.04),
    "mha": ("a.mha", damaged(written("a.mha"), 300), read_any, 0.06),
    "mha, packed": ("a.mha", damaged(written("packed.mha"), 300), read_any, 0.04),
    "mgz": ("a.mgz", damaged(written("a.mgz"), 300), read_any, 0.04),
    "mgh": ("a.mgh", damaged(gzip.decompress(written("a.mgz")), 284), read_any, 0.06),
    "webp": ("a.webp", damaged(picture("WEBP"), 200), read_any, 0.02),
    "jpeg 2000": ("a.jp2", damaged(picture("JPEG2000"), 300), read_any, 0.04),
    "ppm": ("a.ppm", damaged(picture("PPM"), 20), read_any, 0.02),
    "coco": ("a.json", damaged(ANNOTATIONS, 10_000), annotations, 0.04),
    "cvat": ("a.xml", damaged(CVAT, 10_000), annotations, 0.04),
    "tar": ("a.tar.gz", damaged(tarred(), 10_000), unzip, 0.04),
    "tar, unpacked": ("a.tar", damaged(gzip.decompress(tarred()), 600), unzip, 0.04),
    "zip": ("a.zip", damaged(zipped(), 10_000), unzip, 0.06),
    "manifest": ("manifest.json", damaged(MANIFEST, 10_000), read_store, 0.04),
    "splits": ("s.json", damaged(b'{"schema": 1, "seed": 0, "folds": [["01"], ["02"]], "test": []}', 100), read_splits, 0.02),
    "dataset.json": ("dataset.json", damaged(DESCRIPTION, 100), dataset_json, 0.02),
}


def fuzz(form: str, examples: int) -> int:
    """Reads that many files; returns how many were refused."""
    name, contents, read, share = FORMATS[form]
    refused = 0

    @seed(0)
    @settings(max_examples=max(10, round(examples * share)), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(contents)
    def attempt(content: bytes) -> None:
        nonlocal refused
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_bytes(content)
            try:
                read(path)
                return
            except InputError as error:
                message = str(error)
        refused += 1
        assert "\n" not in message
        assert len(message) < 2000
        assert "Doe" not in message  # who is in a header stays there

    attempt()
    return refused


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_files_are_refused_in_one_line(form: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert fuzz(form, 520) > 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY_KIB


@pytest.mark.parametrize("form", ["mha", "mgh", "nrrd", "dicom, JPEG 2000", "jpeg 2000", "dicom", "nifti-1"])
def test_no_library_writes_lines_of_its_own(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    fuzz(form, 520)
    assert capfd.readouterr() == ("", "")


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("form", FORMATS)
def test_damaged_files_are_refused_in_one_line_at_length(form: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert fuzz(form, 20_000) > 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY_KIB
