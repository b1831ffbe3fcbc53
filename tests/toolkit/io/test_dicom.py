from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.io.readers import read_volume
from attunet.volumes.volume import Volume

pydicom = pytest.importorskip("pydicom")

DATA = np.random.default_rng(0).integers(-200, 2000, (12, 10, 6)).astype(np.int16)
OBLIQUE = np.array([[-1.4, 0.2, 0, 10], [0.2, 1.4, 0, -4], [0.01, -0.1, 0, 3], [0, 0, 0, 1.0]])
OBLIQUE[:3, 2] = 3 * np.cross(OBLIQUE[:3, 0], OBLIQUE[:3, 1])  # DICOM slices lie along their normal
AXES = {
    "axial": np.array([[-1.5, 0, 0, 90], [0, -1.2, 0, 70], [0, 0, 5, -30], [0, 0, 0, 1.0]]),
    "sagittal": np.array([[0, 0, 5, -30], [-1.5, 0, 0, 70], [0, -1.2, 0, 90], [0, 0, 0, 1.0]]),
    "oblique": OBLIQUE,
    "coronal, from behind": np.array([[-1.5, 0, 0, 90], [0, 0, -5, 30], [0, -1.2, 0, 90], [0, 0, 0, 1.0]]),
}


def canonical(volume: Volume) -> nib.Nifti1Image:
    return nib.as_closest_canonical(nib.Nifti1Image(volume.data[0], volume.affine))


@pytest.mark.parametrize("axes", AXES)
def test_a_series_lies_where_its_nifti_lies(tmp_path: Path, write_series, axes: str) -> None:
    write_series(tmp_path / "series", DATA, AXES[axes])
    (tmp_path / "series/DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "series/notes.txt").write_text("no DICOM")
    volume = read_volume(tmp_path / "series")
    expected = canonical(Volume(DATA[None], AXES[axes]))
    found = canonical(volume)
    np.testing.assert_array_equal(found.dataobj, expected.dataobj)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-5)
    assert (volume.unit, volume.data.dtype) == ("mm", np.int16)


def test_slices_are_ordered_by_place_and_not_by_name(tmp_path: Path, write_series) -> None:
    paths = write_series(tmp_path / "series", DATA, AXES["axial"])
    for name, path in zip("fbdace", paths, strict=True):
        path.rename(path.with_name(name))
    np.testing.assert_array_equal(
        canonical(read_volume(tmp_path / "series")).dataobj, canonical(Volume(DATA[None], AXES["axial"])).dataobj
    )


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.int32])
def test_pixels_and_rescaling_are_as_the_header_says(tmp_path: Path, write_series, kind: type) -> None:
    data = np.abs(DATA % 200).astype(kind)
    write_series(tmp_path / "plain", data, AXES["axial"])
    plain = read_volume(tmp_path / "plain").data
    assert plain.dtype == kind
    assert sorted(plain.ravel()) == sorted(data.ravel())
    write_series(tmp_path / "scaled", data, AXES["axial"], RescaleSlope="2.5", RescaleIntercept="-1024")
    np.testing.assert_allclose(read_volume(tmp_path / "scaled").data, plain * 2.5 - 1024)


def test_one_file_is_one_slice(tmp_path: Path, write_series) -> None:
    first, *_ = write_series(tmp_path / "series", DATA, AXES["axial"], SliceThickness="5")
    assert read_volume(first).data.shape == (1, 12, 10, 1)
    assert read_volume(first).spacing == pytest.approx((1.5, 1.2, 5))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"SeriesInstanceUID": "1.2.3.4"}, "holds 2 DICOM series; choose one with --series NUMBER"),
        ({"PixelSpacing": ["1.3", "1.5"]}, "must agree in size, spacing and direction"),
        ({"ImageOrientationPatient": ["0", "1", "0", "1", "0", "0"]}, "must agree in size, spacing and direction"),
        ({"ImagePositionPatient": ["-90", "-70", "-30"]}, "two slices lie in the same place"),
        ({"ImagePositionPatient": ["-90", "-70", "-17"]}, "must be evenly spaced, 5 mm apart"),
        ({"NumberOfFrames": 30000}, "has 30000 frames that do not say where they lie"),
        ({"SamplesPerPixel": 3}, "is a colour image .*3 samples a pixel.*, which is not read: leave it out"),
        ({"PhotometricInterpretation": "YBR_FULL"}, "is a colour image .YBR_FULL, 1 samples a pixel."),
        ({"Rows": 30000, "Columns": 30000}, "is cut short: its pixels need 1,800,000,000 bytes"),
        ({"Rows": 65535, "Columns": 65535}, "at most 32768 pixels a side"),
        ({"ImagePositionPatient": None}, "is no slice of a volume: the element ImagePositionPatient is missing"),
        ({"PixelSpacing": ["1.5", "1.5", "1.5"]}, "cannot be read as DICOM: ValueError"),
    ],
)
def test_a_series_that_makes_no_volume_is_one_line(
    tmp_path: Path, write_series, change: dict, rule: str, edit_dicom, refused
):
    edit_dicom(write_series(tmp_path / "series", DATA, AXES["axial"])[2], **change)
    refused(tmp_path / "series", rule)


def test_syntaxes_that_are_not_read_are_named(tmp_path: Path, write_series, refused) -> None:
    for uid in ("1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.1.99"):  # MPEG-2, deflated
        path = write_series(tmp_path / uid, DATA[:, :, :1], AXES["axial"])[0]
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = uid
        raw = path.read_bytes()
        header = pydicom.filebase.DicomBytesIO()
        header.is_little_endian, header.is_implicit_VR = True, False
        pydicom.filewriter.write_file_meta_info(header, dataset.file_meta)
        path.write_bytes(bytes(128) + b"DICM" + header.getvalue() + raw[-500:])
        refused(path, f"the transfer syntax {uid} is not read; decompress it")


def test_big_endian_is_read_as_it_is_meant(tmp_path: Path, write_series) -> None:
    path = write_series(tmp_path / "series", DATA[:, :, :1], AXES["axial"])[0]
    expected = read_volume(path).data
    dataset = pydicom.dcmread(path)
    dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.2"
    pydicom.dcmwrite(path, dataset, little_endian=False, implicit_vr=False, enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(path).data, expected)


def test_a_small_file_that_declares_a_large_element_asks_for_no_memory(
    tmp_path: Path, write_series, refused, little_memory
) -> None:
    path = write_series(tmp_path / "series", DATA[:, :, :1], AXES["axial"])[0]
    raw = path.read_bytes()
    at = raw.index(b"\xe0\x7f\x10\x00")
    path.write_bytes(raw[: at + 8] + (2**32 - 2).to_bytes(4, "little") + raw[at + 12 : -50])
    with little_memory():
        refused(path, r"cannot be read as DICOM|is cut short")
