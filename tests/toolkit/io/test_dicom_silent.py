"""DICOM that would make a wrong volume silently: slices that do not belong together, lack, or mean other values."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attunet.errors import InputError
from attunet.io.headers import count_voxels
from attunet.io.readers import read_volume

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402

DATA = np.random.default_rng(0).integers(0, 350, (12, 10, 6)).astype(np.uint16)
AXIAL = np.diag([-1.5, -1.5, 5, 1.0])


@pytest.mark.parametrize(
    ("element", "value"),
    [
        ("PatientID", "another"),
        ("IssuerOfPatientID", "another"),
        ("StudyInstanceUID", "1.2.826.0.1.7"),
        ("Modality", "CT"),
        ("EchoNumbers", 2),
        ("EchoTime", 80),
        ("PatientName", "another"),
        ("PatientBirthDate", "19900202"),
        ("PhotometricInterpretation", "MONOCHROME1"),
    ],
)
def test_slices_of_one_series_agree_in(tmp_path: Path, write_series, edit_dicom, refused, element, value) -> None:
    paths = write_series(tmp_path / "s", DATA, AXIAL, PatientID="anon")
    assert read_volume(tmp_path / "s").data.shape == (1, 12, 10, 6)
    for path in paths[3:]:
        edit_dicom(path, **{element: value})
    line = refused(tmp_path / "s", f"must agree in {element}, {paths[3].name} differs from {paths[0].name}")
    assert "another" not in line


@pytest.mark.parametrize(
    "times",
    [["98.7", "98.70", "98.700001"], ["1.795", "1.7949999", "1.7950001"], [["10", "80"]] * 3, [None, "", None]],
)
def test_echo_times_may_be_rounded(tmp_path: Path, write_series, edit_dicom, times: list[object]) -> None:
    for path, value in zip(write_series(tmp_path / "s", DATA, AXIAL, EchoTime="1"), times * 2, strict=True):
        edit_dicom(path, EchoTime=value)
    assert read_volume(tmp_path / "s").data.shape == (1, 12, 10, 6)


def test_frames_of_reference_may_differ_as_anonymising_programs_leave_them(
    tmp_path: Path, write_series, edit_dicom
) -> None:
    for number, path in enumerate(write_series(tmp_path / "s", DATA, AXIAL)):
        edit_dicom(path, FrameOfReferenceUID=f"1.2.826.0.1.{number + 1}")
    assert read_volume(tmp_path / "s").data.shape == (1, 12, 10, 6)


@pytest.mark.parametrize("value", [[2, 0, 0, 0, 2, 0], [1, 0, 0, 0.6, 0.8, 0], [0] * 6, [1, 0, 0, 0, 0.98, 0]])
def test_directions_have_length_1_and_are_at_right_angles(
    tmp_path: Path, write_series, edit_dicom, refused, value: list[float]
) -> None:
    for path in write_series(tmp_path / "s", DATA, AXIAL):
        edit_dicom(path, ImageOrientationPatient=value)
    refused(tmp_path / "s", "ImageOrientationPatient must be two directions of length 1 at right angles")


def test_directions_may_be_rounded(tmp_path: Path, write_series, edit_dicom) -> None:
    for path in write_series(tmp_path / "s", DATA, AXIAL):
        edit_dicom(path, ImageOrientationPatient=[1, 0.002, 0, -0.002, 1, 0])
    assert read_volume(tmp_path / "s").spacing == pytest.approx((1.5, 1.5, 5), rel=1e-3)


def shifted_in_the_plane(place: np.ndarray, index: int) -> np.ndarray:
    return place + np.array([1.5 * (index == 2), 0, 0])


def slow_then_quick(_: np.ndarray, index: int) -> np.ndarray:
    return np.array([0, 0, 5 * index - 0.2 * abs(index - 18)])


@pytest.mark.parametrize("place", [shifted_in_the_plane, slow_then_quick])
def test_slices_lie_in_a_line(tmp_path: Path, write_series, edit_dicom, refused, place: Callable) -> None:
    for index, path in enumerate(write_series(tmp_path / "s", np.repeat(DATA, 6, axis=2), AXIAL)):
        before = np.array(pydicom.dcmread(path).ImagePositionPatient, dtype=float)
        edit_dicom(path, ImagePositionPatient=[f"{value:.6g}" for value in place(before, index)])
    refused(tmp_path / "s", "slices must lie in a straight line, evenly, but IMG.* voxels away from the line")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"Rows": 5}, "has more pixels than its header names: its pixels need 120 bytes, the file has 240"),
        ({"Columns": 10}, "has more pixels than its header names"),
        ({"RescaleSlope": "1e-46", "RescaleIntercept": "0"}, "RescaleSlope must tell values apart, got 1e-46"),
        ({"RescaleSlope": "1e-9", "RescaleIntercept": "1000000"}, "RescaleSlope must tell values apart"),
        ({"RescaleSlope": "2." + 1200 * "0"}, "cannot be read as DICOM: ValueError"),
        ({"BitsStored": 12, "HighBit": 77}, "BitsStored 12 and HighBit 77 do not fit 16 bits; .*dicom-bits=allocated"),
        ({"BitsStored": 20}, "BitsStored 20 and HighBit 15 do not fit 16 bits"),
        ({"PixelRepresentation": 2}, "PixelRepresentation must be 0 or 1, got 2"),
    ],
)
def test_pixels_that_do_not_fit_their_header(tmp_path: Path, write_series, edit_dicom, refused, change, rule) -> None:
    path = write_series(tmp_path / "s", DATA, AXIAL)[2]
    with pydicom.config.disable_value_validation():
        edit_dicom(path, **change)
    refused(tmp_path / "s", rule)


def test_a_damaged_length_is_no_pixel(tmp_path: Path, write_series, refused) -> None:
    path = write_series(tmp_path / "s", DATA[:, :, :1], AXIAL)[0]
    raw = path.read_bytes()
    at = raw.index(b"\xe0\x7f\x10\x00") + 4
    path.write_bytes(raw[:at] + b"." + raw[at + 1 :])
    refused(path, "is cut short: its pixels need 240 bytes")


def test_one_byte_of_padding_is_no_pixel(tmp_path: Path, write_series) -> None:
    path = write_series(tmp_path / "s", np.ones((3, 3, 1), np.uint8), AXIAL)[0]
    assert read_volume(path).data.sum() == 9


@pytest.mark.parametrize("length", [4, 4096])
def test_a_table_of_values_is_refused(tmp_path: Path, write_series, edit_dicom, refused, length: int) -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData, table.ModalityLUTType = [length, 0, 16], bytes(2 * length), "US"
    path = write_series(tmp_path / "s", DATA, AXIAL)[0]
    edit_dicom(path, ModalityLUTSequence=Sequence([table]))
    refused(tmp_path / "s", "its values mean what a table says .ModalityLUTSequence., which is not read")


def test_bytes_in_words_of_big_endian_are_not_swapped(tmp_path: Path, write_series, refused) -> None:
    path = write_series(tmp_path / "s", DATA.astype(np.uint8)[:, :, :1], AXIAL)[0]
    for kind in ("OB", "OW"):
        dataset = pydicom.dcmread(path)
        dataset["PixelData"].VR = kind
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.2"
        pydicom.dcmwrite(tmp_path / kind, dataset, little_endian=False, implicit_vr=False, enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(tmp_path / "OB").data, read_volume(path).data)
    refused(tmp_path / "OW", "pixels of 8 bits in words of Big Endian, which are not read")


@pytest.mark.parametrize("name", ["IMG-0004-{}.dcm", "IM{}", "{}", "MR.1.2.840.{}", "1.2.840.{}.7", "{}AF0C"])
@pytest.mark.parametrize("content", ["empty", "zeros", "short", "link", "dangling"])
def test_a_last_slice_that_cannot_be_read_is_not_left_out(tmp_path: Path, write_series, name, content) -> None:
    written = write_series(tmp_path / "s", DATA, AXIAL)
    first, *_, path = [path.rename(path.with_name(name.format(at))) for at, path in enumerate(written, 6)]
    if content in ("empty", "zeros", "short"):
        path.write_bytes({"empty": b"", "zeros": bytes(700), "short": path.read_bytes()[:100]}[content])
    else:
        path.unlink()
        path.symlink_to(first if content == "link" else path.with_name("nowhere"))
    with pytest.raises(InputError, match=f"{path.name}: (holds no DICOM, so a slice may be missing|must be a file)"):
        read_volume(tmp_path / "s")


@pytest.mark.parametrize("name", ["IM7", "IMG-0004-00007.dcm", "x"])
def test_a_pipe_beside_slices_is_refused_unread(tmp_path: Path, write_series, refused, name: str) -> None:
    write_series(tmp_path / "s", DATA, AXIAL)
    os.mkfifo(tmp_path / "s" / name)
    refused(tmp_path / "s", f"{name}: must be a file of its own, no link or pipe")


def test_other_files_beside_slices_are_left_out(tmp_path: Path, write_series) -> None:
    for at, path in enumerate(write_series(tmp_path / "s", DATA, AXIAL)):
        path.rename(path.with_name(f"IM{at}"))
    for name in ("README", "VERSION", "IM1.txt", "notes.txt", "1.png", "DICOMDIR", ".IM7"):
        (tmp_path / "s" / name).write_text("none of the slices")
    (tmp_path / "s/link").symlink_to("IM1")
    (tmp_path / "s/IM7").mkdir()
    assert read_volume(tmp_path / "s").data.shape[-1] == 6


@pytest.mark.parametrize("content", ["damaged", "without a series"])
def test_a_chosen_series_may_lack_no_file(tmp_path: Path, write_series, edit_dicom, content: str) -> None:
    paths = write_series(tmp_path / "a", DATA, AXIAL)
    for path in write_series(tmp_path / "b", DATA, AXIAL, SeriesInstanceUID="1.2.826.0.1.5"):
        path.rename(tmp_path / "a" / f"b{path.name}")
    choices = {"dicom-series": "1"}
    assert read_volume(tmp_path / "a", choices=choices).data.shape[-1] == 6
    if content == "damaged":
        paths[-1].write_bytes(paths[-1].read_bytes()[:200])
    else:
        edit_dicom(paths[-1], SeriesInstanceUID=None)
    with pytest.raises(InputError, match=paths[-1].name):
        read_volume(tmp_path / "a", choices=choices)


def test_a_file_without_a_size_hides_no_others(tmp_path: Path, write_series, edit_dicom) -> None:
    """A server refuses by this figure what it has no memory for."""
    paths = write_series(tmp_path / "s", DATA, AXIAL)
    with pydicom.config.disable_value_validation():
        edit_dicom(paths[1], NumberOfFrames=-1000)
        edit_dicom(paths[2], Rows=None)
    paths[3].write_bytes(paths[3].read_bytes()[:200])
    assert count_voxels(tmp_path / "s")[0] >= 3 * 120


def test_the_only_slice_is_not_mirrored(tmp_path: Path, write_series) -> None:
    path = write_series(tmp_path / "s", DATA[:, :, :1], AXIAL, SpacingBetweenSlices="-3")[0]
    np.testing.assert_allclose(read_volume(path).affine[:3, 2], (0, 0, 3))


def test_a_mosaic_of_slices_is_no_picture(tmp_path: Path, write_series, edit_dicom, refused) -> None:
    first, *_ = write_series(tmp_path / "s", DATA, AXIAL)
    edit_dicom(first, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    refused(first, "is a mosaic, one picture of all slices of a volume, which is not read: convert it to NIfTI")


def test_positions_may_be_rounded_to_a_tenth_of_a_millimetre(tmp_path: Path, write_series, edit_dicom, refused) -> None:
    paths = write_series(tmp_path / "s", DATA, AXIAL)
    for number, path in enumerate(paths):
        edit_dicom(path, ImagePositionPatient=[0, 0, round(0.625 * number, 1)])
    assert read_volume(tmp_path / "s").spacing == pytest.approx((1.5, 1.5, 0.62))
    edit_dicom(paths[-1], ImagePositionPatient=[0, 0, 3.3])
    refused(tmp_path / "s", "slices must be evenly spaced")
