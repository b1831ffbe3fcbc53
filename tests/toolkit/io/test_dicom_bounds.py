"""DICOM made to take time or memory, or with elements that fail when they are asked for: one line, in bounded work."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from attunet.io.dicom.bounded_reads import BYTES_PER_READ, MIN_READS, READS_PER_FILE, BoundedReads
from attunet.io.dicom.choose_series import list_series
from attunet.io.dicom.file import modality_of
from attunet.io.headers import count_voxels
from attunet.io.readers import read_volume
from attunet.system.deadline import ended_by

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402

AXIAL = np.array([[-1.5, 0, 0, 90], [0, -1.2, 0, 70], [0, 0, 5, -30], [0, 0, 0, 1.0]])
PIXELS = np.arange(8 * 6 * 3, dtype=np.uint16).reshape(8, 6, 3)
ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    is_long = vr in (b"OB", b"SQ", b"UC")
    length = struct.pack("<HI", 0, len(value)) if is_long else struct.pack("<H", len(value))
    return struct.pack("<HH", group, number) + vr + length + value


def head(syntax: bytes = b"1.2.840.10008.1.2.1\0") -> bytes:
    return bytes(128) + b"DICM" + element(2, 0x10, b"UI", syntax)


def endless(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    start = struct.pack("<HH2sHI", group, number, vr, 0, 2**32 - 1)
    return start + value + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def image(*parts: bytes) -> bytes:
    sides = element(0x28, 0x10, b"US", b"\1\0") + element(0x28, 0x11, b"US", b"\1\0")
    return head() + element(8, 0x60, b"CS", b"MR") + sides + b"".join(parts) + element(0x7FE0, 0x10, b"OB", b"\1\0")


def with_raw_element(path: Path, keyword: str, vr: bytes, value: bytes) -> None:
    """Writes a file again with an element of another representation than the standard's."""
    dataset = pydicom.dcmread(path)
    tag = pydicom.tag.Tag(keyword)
    if tag in dataset:
        del dataset[tag]
    earlier, later = dataset[:tag], dataset[tag:]
    raw = []
    for part in (earlier, later):
        buffer = pydicom.filebase.DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        pydicom.filewriter.write_dataset(buffer, part)
        raw.append(buffer.getvalue())
    path.write_bytes(head() + raw[0] + element(tag.group, tag.element, vr, value) + raw[1])


def test_a_deflated_file_is_refused_before_it_is_inflated(tmp_path: Path, refused, little_memory) -> None:
    deflate = zlib.compressobj(9, wbits=-15)
    packed = b"".join(deflate.compress(bytes(2**20)) for _ in range(300)) + deflate.flush()
    path = tmp_path / "a.dcm"
    for meta in (head(b"1.2.840.10008.1.2.1.99"), _disguised()):
        path.write_bytes(meta + packed)
        with little_memory():
            refused(path, r"the transfer syntax 1.2.840.10008.1.2.1.99 is not read", count_voxels)
            refused(path, r"the transfer syntax 1.2.840.10008.1.2.1.99 is not read; decompress it")


def _disguised() -> bytes:
    """A meta group that reads as uncompressed to whoever takes the length of OV to be short."""
    inner = b"\0\0" + b"UI" + struct.pack("<H", 20) + b"1.2.840.10008.1.2.1\0"
    length = 0x00100002
    odd = struct.pack("<HH2sHI", 2, 5, b"OV", 0, length) + inner.ljust(length, b"\0")
    return bytes(128) + b"DICM" + element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1.99") + odd


@pytest.mark.parametrize("name", ["elements", "items", "fragments", "frames"])
def test_more_elements_than_a_scan_needs_are_refused(tmp_path: Path, refused, little_memory, name: str) -> None:
    number = 400_000
    contents = {
        "elements": lambda: head() + element(9, 0x10, b"LO", b"") * number,
        "items": lambda: head() + endless(8, 0x1140, b"SQ", ITEM * number),
        "fragments": lambda: head(b"1.2.840.10008.1.2.4.90") + endless(0x7FE0, 0x10, b"OB", ITEM * number),
        "frames": lambda: image(element(0x5200, 0x9230, b"SQ", ITEM * number)),
    }
    (tmp_path / "a.dcm").write_bytes(contents[name]())
    with little_memory():
        refused(tmp_path / "a.dcm", f"has more elements than a scan of its size needs, {MIN_READS:,} reads")


@pytest.mark.parametrize("num_files", [1, 1000])
def test_the_bound_of_reads_grows_with_the_file_and_is_shared_by_a_series(num_files: int) -> None:
    reads = BoundedReads(bytes(BYTES_PER_READ * 1000), Path("a.dcm"), num_files)
    for _ in range(MIN_READS // num_files + READS_PER_FILE + 1000):
        reads.read(1)
    with pytest.raises(ValueError, match="has more elements"):
        reads.read(1)


def test_a_series_of_files_full_of_empty_elements_is_refused_at_its_first(
    tmp_path: Path, write_series, refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_series(tmp_path / "s", np.repeat(PIXELS[:, :, :1], 40, axis=2), AXIAL)
    empty = b"".join(element(0x29, 0x1000 + number, b"LO", b"") for number in range(8000))
    for path in paths:
        raw = path.read_bytes()
        at = raw.index(struct.pack("<HH", 0x7FE0, 0x10))
        path.write_bytes(raw[:at].replace(empty, b"") + empty + raw[at:])
    assert read_volume(paths[0]).data.shape == (1, 8, 6, 1)
    reads: list[Path] = []
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or path.open("rb").read())
    for read in (read_volume, count_voxels):
        refused(tmp_path / "s", f"{paths[0].name}: has more elements than a scan of its size needs", read)
    assert reads == paths[:1] * 2


@pytest.mark.parametrize("group", ["shared", "frame"])
def test_only_the_groups_that_are_needed_are_converted(tmp_path: Path, write_series, little_memory, group) -> None:
    """Two thousand private sequences in a functional group; all of them for every frame took minutes."""
    first = pydicom.dcmread(write_series(tmp_path / "s", PIXELS[:, :, :1], AXIAL)[0])
    place, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = first.ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = first.PixelSpacing, "5"
    shared, frames = Dataset(), []
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([orientation]), Sequence([measures])
    for number in range(600):
        place = Dataset()
        place.ImagePositionPatient = [0, 0, 5 * number]
        frames.append(Dataset())
        frames[-1].PlanePositionSequence = Sequence([place])
    for number in range(2000):
        (shared if group == "shared" else frames[0]).add_new((0x0041, 0x1000 + number), "SQ", Sequence([Dataset()]))
    first.SharedFunctionalGroupsSequence, first.PerFrameFunctionalGroupsSequence = Sequence([shared]), Sequence(frames)
    first.NumberOfFrames, first.PixelData = len(frames), first.PixelData * len(frames)
    first.save_as(tmp_path / "a.dcm")
    converted = []
    pydicom.hooks.hooks.register_callback(
        "raw_element_vr", lambda raw, data, **more: _counted(converted, raw, data, more)
    )
    try:
        assert read_volume(tmp_path / "a.dcm").data.shape == (1, 8, 6, 600)
    finally:
        pydicom.hooks.hooks.register_callback("raw_element_vr", pydicom.hooks.raw_element_vr)
    assert converted
    assert not [tag for tag in converted if tag.group == 0x0041]


def _counted(converted: list, raw, data: dict, more: dict) -> None:
    converted.append(raw.tag)
    pydicom.hooks.raw_element_vr(raw, data, **more)


def test_a_file_of_more_frames_than_slices_are_supported_is_refused(tmp_path: Path, refused) -> None:
    number = 16_385
    content = image(element(0x5200, 0x9230, b"SQ", ITEM * number), element(0x5400, 0x10, b"OB", bytes(2**20)))
    (tmp_path / "a.dcm").write_bytes(content)
    refused(tmp_path / "a.dcm", "at most 16,384 frames are supported, got 16,385")


def test_long_elements_are_not_converted(tmp_path: Path, refused, little_memory) -> None:
    """Four million words: of the character set, which pydicom looks up at once, or of a number that is asked for."""
    path, words = tmp_path / "a.dcm", b"1\\" * 2_000_000
    implicit = head(b"1.2.840.10008.1.2\0")
    path.write_bytes(implicit + struct.pack("<HHI", 8, 5, len(words)) + words)
    with little_memory():
        refused(path, "SpecificCharacterSet has at most 256 bytes, got 4,000,000")
    parts = [
        (8, 0x60, b"MR"),
        (0x20, 0x32, words),
        (0x28, 0x10, b"\1\0"),
        (0x28, 0x11, b"\1\0"),
        (0x7FE0, 0x10, b"\1\0"),
    ]
    path.write_bytes(implicit + b"".join(struct.pack("<HHI", *tag, len(value)) + value for *tag, value in parts))
    with little_memory():
        refused(path, "the element ImagePositionPatient is missing")


@pytest.mark.parametrize("words", [b"punycode", rb"ISO 2022 IR 6\ISO 2022 IR 149\ISO 2022 IR 58"])
def test_a_long_name_in_an_odd_character_set_is_not_decoded(tmp_path: Path, write_series, words: bytes) -> None:
    """Python's punycode takes quadratic time, pydicom a step for each escape."""
    path = write_series(tmp_path / "s", PIXELS[:, :, :1], AXIAL, PatientID="7")[0]
    assert read_volume(path).patient_hash is not None
    dataset = pydicom.dcmread(path)
    dataset.SpecificCharacterSet = words.decode().split("\\")
    dataset.save_as(path)
    with_raw_element(path, "PatientID", b"UC", b"\x1b" * 10**6)
    assert read_volume(path).patient_hash is None


LATE = {  # elements that pydicom converts when they are asked for, and then refuses
    "Modality": (b"FD", b"abc "),
    "SeriesInstanceUID": (b"FD", b"abc "),
    "SeriesDescription": (b"FD", b"abc "),
    "SeriesNumber": (b"FD", b"abc "),
    "PatientName": (b"FL", b"abc"),
    "Rows": (b"US", b"abc"),
    "InstitutionName": (b"SQ", b"abc "),
}


@pytest.mark.parametrize("keyword", LATE)
def test_an_element_that_cannot_be_converted_is_one_line(tmp_path: Path, write_series, refused, keyword: str) -> None:
    """Beside another series, so that the folder's series are listed too."""
    paths = write_series(tmp_path / "s", PIXELS, AXIAL)
    dataset = pydicom.dcmread(paths[2])
    dataset.SeriesInstanceUID = "1.2.3.4"
    dataset.save_as(paths[2])
    with_raw_element(paths[0], keyword, *LATE[keyword])
    assert "abc" not in refused(tmp_path / "s", "cannot be read as DICOM|must hold one series|choose one with --series")
    assert paths[0] not in [file for series in list_series(paths) for file in series.files]
    if keyword == "Modality":
        refused(paths[0], "cannot be read as DICOM: BytesLengthException", modality_of)
    assert count_voxels(paths[0])[0] in (0, 48)


def test_a_file_without_columns_beside_another_series_is_one_line(tmp_path: Path, write_series, edit_dicom, refused):
    paths = write_series(tmp_path / "s", PIXELS, AXIAL)
    edit_dicom(paths[2], SeriesInstanceUID="1.2.3.4")
    edit_dicom(paths[0], Columns=None)
    refused(tmp_path / "s", "the element Columns is missing")


def test_reading_a_series_ends_where_its_time_is_over(tmp_path: Path, write_series) -> None:
    write_series(tmp_path / "s", PIXELS, AXIAL)
    calls = []

    def over() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise TimeoutError

    with ended_by(over), pytest.raises(TimeoutError):
        read_volume(tmp_path / "s")
    assert len(calls) == 2
    assert read_volume(tmp_path / "s").shape == PIXELS.shape
