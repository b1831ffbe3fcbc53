"""Values of DICOM pixels: bits, signs, compression, many frames, and the objects that hold no slices."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attunet.decisions import parse_choices
from attunet.errors import InputError
from attunet.io.dicom.file import dataset_of
from attunet.io.readers import read_volume

pydicom = pytest.importorskip("pydicom")

DATA = np.random.default_rng(0).integers(-330, 350, (12, 10, 6)).astype(np.int16)
AXIAL = np.array([[-1.5, 0, 0, 90], [0, -1.2, 0, 70], [0, 0, 5, -30], [0, 0, 0, 1.0]])


def rules(volume: Any) -> set[str]:
    return {decision.rule for decision in volume.decisions}


def with_bits(write_series, folder: Path, stored: np.ndarray, **elements: object) -> Path:
    write_series(folder, stored, AXIAL, **elements)
    return folder


@pytest.mark.parametrize(
    ("stored", "elements", "expected"),
    [
        ((DATA.astype(np.int32) & 0x0FFF).astype(np.uint16).view(np.int16), {"BitsStored": 12, "HighBit": 11}, DATA),
        ((DATA.astype(np.int32) << 4).astype(np.int16), {"BitsStored": 12, "HighBit": 15}, DATA),
        # An overlay in bit 14
        ((DATA + 400).astype(np.uint16) | np.uint16(0x4000), {"BitsStored": 12, "HighBit": 11}, DATA + 400),
        ((DATA % 100).astype(np.uint8) | np.uint8(0x80), {"BitsStored": 7, "HighBit": 6}, DATA % 100),
    ],
    ids=["sign bit 11", "high bit 15", "overlay", "8 bits"],
)
def test_values_are_the_bits_that_are_stored(tmp_path: Path, write_series, stored, elements, expected) -> None:
    volume = read_volume(with_bits(write_series, tmp_path / "s", stored, **elements))
    plain = read_volume(with_bits(write_series, tmp_path / "plain", expected.astype(stored.dtype)))
    np.testing.assert_array_equal(volume.data, plain.data)
    assert rules(volume) == {"dicom-bits"}
    assert rules(plain) == set()
    allocated = read_volume(tmp_path / "s", choices=parse_choices(["dicom-bits=allocated"]))
    assert sorted(np.unique(allocated.data)) == sorted(np.unique(stored))


def test_values_agree_with_pydicom(tmp_path: Path, write_series) -> None:
    stored = (DATA.astype(np.int32) & 0x0FFF).astype(np.uint16).view(np.int16)
    first, *_ = write_series(tmp_path / "s", stored, AXIAL, BitsStored=12, HighBit=11)
    theirs = pydicom.dcmread(first).pixel_array
    ours = read_volume(first).data[0, :, :, 0].T
    np.testing.assert_array_equal(ours, np.where(theirs > 2047, theirs.astype(int) - 4096, theirs))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"])
@pytest.mark.parametrize("number", [3, 6])
def test_files_without_a_preamble_are_slices_too(tmp_path: Path, write_series, number: int, syntax: str) -> None:
    paths = write_series(tmp_path / "s", DATA, AXIAL)
    expected = read_volume(tmp_path / "s")
    for path in paths[-number:]:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path, implicit_vr=syntax.endswith(".2"), little_endian=True, enforce_file_format=True)
        path.write_bytes(path.read_bytes()[132:])
    volume = read_volume(tmp_path / "s")
    np.testing.assert_array_equal(volume.data, expected.data)
    assert rules(volume) == {"dicom-preamble"}
    np.testing.assert_array_equal(read_volume(paths[-1]).data[..., 0], expected.data[..., -1])
    if number == 3:
        assert read_volume(tmp_path / "s", choices=parse_choices(["dicom-preamble=skip"])).shape[2] == 3


@pytest.mark.parametrize("syntax", ["explicit", "implicit"])
def test_a_file_without_meta_group_is_a_slice_too(tmp_path: Path, write_series, syntax: str) -> None:
    """Archives before 1993 wrote the data set alone."""
    first, *_ = write_series(tmp_path / "s", DATA, AXIAL)
    expected = read_volume(first).data
    dataset = pydicom.dcmread(first)
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, syntax == "implicit"
    pydicom.filewriter.write_dataset(buffer, dataset)
    first.write_bytes(buffer.getvalue())
    np.testing.assert_array_equal(read_volume(first).data, expected)


def test_a_meta_group_without_the_syntax_is_read_as_none(tmp_path: Path, write_series) -> None:
    first, *_ = write_series(tmp_path / "s", DATA, AXIAL)
    expected = read_volume(first).data
    dataset = pydicom.dcmread(first)
    del dataset.file_meta.TransferSyntaxUID
    dataset.save_as(first, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert "TransferSyntaxUID" not in pydicom.dcmread(first).file_meta
    np.testing.assert_array_equal(read_volume(first).data, expected)


def test_white_at_the_lowest_value_is_inverted_unless_values_have_a_unit(tmp_path: Path, write_series) -> None:
    data = (DATA + 400).astype(np.uint16)
    bits = {"BitsStored": 12, "HighBit": 11}
    plain = read_volume(with_bits(write_series, tmp_path / "plain", data, Modality="MR", **bits)).data
    inverted = with_bits(
        write_series, tmp_path / "mr", 4095 - data, Modality="MR", PhotometricInterpretation="MONOCHROME1", **bits
    )
    volume = read_volume(inverted)
    np.testing.assert_array_equal(volume.data, plain)  # within the 12 bits
    assert rules(volume) == {"monochrome1"}
    ct = with_bits(write_series, tmp_path / "ct", data, Modality="CT", PhotometricInterpretation="MONOCHROME1", **bits)
    np.testing.assert_array_equal(read_volume(ct).data, plain)
    blanks = {"Modality": " CT ", "PhotometricInterpretation": " MONOCHROME1"}
    padded = with_bits(write_series, tmp_path / "padded", data, **blanks, **bits)
    np.testing.assert_array_equal(read_volume(padded).data, plain)
    kept = read_volume(inverted, choices=parse_choices(["monochrome1=stored"]))
    np.testing.assert_array_equal(kept.data, 4095 - plain)


def test_bits_may_differ_where_nothing_is_inverted_within_them(
    tmp_path: Path, write_series, edit_dicom, refused
) -> None:
    paths = write_series(tmp_path / "s", (DATA + 400).astype(np.uint16), AXIAL)
    edit_dicom(paths[0], BitsStored=12, HighBit=11)
    assert read_volume(tmp_path / "s").shape[2] == len(paths)
    for path in paths:
        edit_dicom(path, PhotometricInterpretation="MONOCHROME1")
    refused(tmp_path / "s", "must agree in BitsStored")


def test_every_slice_has_its_own_scaling(tmp_path: Path, write_series, edit_dicom) -> None:
    paths = write_series(tmp_path / "s", DATA, AXIAL)
    stored = read_volume(tmp_path / "s").data
    for number, path in enumerate(paths):
        edit_dicom(path, RescaleSlope=str(number + 1), RescaleIntercept=str(-10 * number))
    scaled = read_volume(tmp_path / "s").data
    for z in range(6):
        np.testing.assert_allclose(scaled[0, :, :, z], stored[0, :, :, z] * (z + 1.0) - 10 * z)


@pytest.mark.parametrize(
    ("element", "value", "words"),
    [
        ("PixelSpacing", [-2, 2], "PixelSpacing must be above 0 mm, got -2 and 2"),
        ("PixelSpacing", [2, 0], "PixelSpacing must be above 0 mm, got 2 and 0"),
        ("RescaleSlope", "0", "RescaleSlope must tell values apart, got 0"),
    ],
)
def test_geometry_that_would_mirror_or_flatten_is_refused(
    tmp_path: Path, write_series, edit_dicom, element: str, value: object, words: str
) -> None:
    for path in write_series(tmp_path / "s", DATA, AXIAL):
        edit_dicom(path, **{element: value})
    with pytest.raises(InputError, match=words) as error:
        read_volume(tmp_path / "s")
    assert str(error.value).startswith(str(tmp_path / "s/IMG-0004-00001.dcm"))


def enhanced(write_series, folder: Path, shared: tuple[str, ...] = ("orientation", "measures")) -> Path:
    """The slices of a series as one file of many frames; what all frames have in common is shared."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    paths = write_series(folder / "single", DATA, AXIAL)
    slices = [pydicom.dcmread(path) for path in paths]
    dataset = pydicom.dcmread(paths[0])
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"  # Enhanced CT
    order = [3, 0, 5, 1, 4, 2]  # frames need not be in the order of space

    def group(number: int, kinds: tuple[str, ...]) -> Dataset:
        found = Dataset()
        for kind, name, elements in (
            ("position", "PlanePositionSequence", ("ImagePositionPatient",)),
            ("orientation", "PlaneOrientationSequence", ("ImageOrientationPatient",)),
            ("measures", "PixelMeasuresSequence", ("PixelSpacing", "SliceThickness")),
        ):
            if kind in kinds:
                item = Dataset()
                for element in elements:
                    if element in slices[number]:
                        setattr(item, element, slices[number].get(element))
                setattr(found, name, Sequence([item]))
        if "scaling" in kinds:
            item = Dataset()
            item.RescaleSlope, item.RescaleIntercept = "2", str(number)
            found.PixelValueTransformationSequence = Sequence([item])
        return found

    own = tuple({"position", "orientation", "measures", "scaling"} - set(shared))
    dataset.SharedFunctionalGroupsSequence = Sequence([group(0, shared)])
    dataset.PerFrameFunctionalGroupsSequence = Sequence([group(number, own) for number in order])
    dataset.NumberOfFrames = len(order)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, name)
    dataset.PixelData = b"".join(slices[number].PixelData for number in order)
    dataset.save_as(folder / "enhanced.dcm")
    return folder / "enhanced.dcm"


@pytest.mark.parametrize("shared", [("orientation", "measures"), ("measures",), ("orientation",)])
def test_many_frames_in_one_file_are_the_series(tmp_path: Path, write_series, shared: tuple[str, ...]) -> None:
    volume = read_volume(enhanced(write_series, tmp_path, shared))
    expected = read_volume(tmp_path / "single")
    np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-6)
    by_number = [2.0 * expected.data[0, :, :, z] + z for z in range(6)]
    np.testing.assert_allclose(np.moveaxis(volume.data[0], -1, 0), by_number)


@pytest.mark.parametrize("offsets", ["backwards", "too few"])
def test_compressed_frames_are_all_there(tmp_path: Path, write_series, refused, offsets: str) -> None:
    path = enhanced(write_series, tmp_path)
    dataset = pydicom.dcmread(path)
    dataset.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
    frames = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=6))
    content = pydicom.encaps.encapsulate(frames if offsets == "backwards" else frames[:5])
    table = np.frombuffer(content[8:32], "<u4")[::-1].tobytes()
    dataset.PixelData = content[:8] + table + content[32:] if offsets == "backwards" else content
    dataset.save_as(path)
    refused(path, "has more pixels than its header names|cannot be read as DICOM: StopIteration")


def test_phases_in_one_file_are_refused_with_what_to_do(tmp_path: Path, write_series, refused) -> None:
    path = enhanced(write_series, tmp_path)
    dataset = pydicom.dcmread(path)
    groups = dataset.PerFrameFunctionalGroupsSequence
    groups[3].PlanePositionSequence = groups[2].PlanePositionSequence
    dataset.save_as(path)
    refused(path, f"{path.name} has several frames in the same place, as phases and echoes do: convert it to a NIfTI")


def test_frames_of_several_echoes_are_refused(tmp_path: Path, write_series, refused) -> None:
    path = enhanced(write_series, tmp_path)
    dataset = pydicom.dcmread(path)
    for number, times in enumerate(([10.001, 10.002], [10, 80])):
        for at, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            group.MREchoSequence = [pydicom.Dataset()]
            group.MREchoSequence[0].EffectiveEchoTime = times[at % 2]
        dataset.save_as(path)
        if number == 0:
            assert read_volume(path).data.shape[-1] == 6
    refused(path, "has frames of several echoes .EffectiveEchoTime.: convert it to a NIfTI file for each")


def test_a_frame_without_its_place_is_refused(tmp_path: Path, write_series, refused) -> None:
    path = enhanced(write_series, tmp_path)
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence
    dataset.save_as(path)
    refused(path, "a frame lacks the element ImagePositionPatient")
    del dataset.PerFrameFunctionalGroupsSequence
    dataset.save_as(path)
    refused(path, "has 6 frames that do not say where they lie")


KINDS = {
    "1.2.840.10008.5.1.4.1.1.88.11": "Basic Text SR",
    "1.2.840.10008.5.1.4.1.1.481.5": "RT Plan",
    "1.2.840.10008.5.1.4.1.1.481.3": "RT Structure Set",
    "1.2.840.10008.1.3.10": "Media Storage Directory",
}


@pytest.mark.parametrize("uid", KINDS)
@pytest.mark.parametrize("inside", [False, True])
def test_objects_without_slices_are_refused_by_their_kind(tmp_path: Path, write_series, uid, inside, refused) -> None:
    paths = write_series(tmp_path / "s", DATA, AXIAL)
    dataset = pydicom.dcmread(paths[0])
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid
    for name in ("PixelData", "Rows", "Columns", "PixelSpacing", "ImagePositionPatient"):
        delattr(dataset, name)
    path = tmp_path / "s/IMG-0004-00009.dcm" if inside else tmp_path / "other.dcm"
    dataset.save_as(path)
    refused(tmp_path / "s" if inside else path, rf"{path.name}: is no image of slices but {KINDS[uid]}")


def test_doses_and_segmentations_are_no_scans(tmp_path: Path, write_series, refused) -> None:
    for modality in ("RTDOSE", "SEG"):
        write_series(tmp_path / modality, DATA, AXIAL, Modality=modality)
        refused(tmp_path / modality, f"is no image of slices but .*: its modality is {modality}")


@pytest.mark.parametrize("element", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_projection_is_refused_by_the_missing_element(tmp_path: Path, write_series, element, edit_dicom, refused):
    path = write_series(tmp_path / "s", DATA[:, :, :1], AXIAL, Modality="CR")[0]
    edit_dicom(path, **{element: None})
    refused(path, f"is no slice of a volume: the element {element} is missing")


def test_slices_of_a_tilted_gantry_say_so_and_have_the_volume_of_parallelepipeds(tmp_path, write_series, edit_dicom):
    data = np.zeros((8, 6, 4), np.int16)
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    for index, path in enumerate(write_series(tmp_path / "series", data, affine)):
        edit_dicom(path, ImagePositionPatient=["0", str(2.0 * index), str(5.0 * index)])
    volume = read_volume(tmp_path / "series")
    (decision,) = [decision for decision in volume.decisions if decision.rule == "sheared"]
    assert "by 22 degrees" in decision.text
    assert volume.voxel_volume == pytest.approx(2 * 2 * 5)
    assert volume.spacing[2] == pytest.approx(np.hypot(2, 5))
    assert not read_volume(write_series(tmp_path / "straight", data, affine)[0].parent).decisions


@pytest.mark.filterwarnings("error")
def test_warnings_that_quote_a_header_are_dropped_while_another_thread_reads(tmp_path: Path, write_series) -> None:
    (path,) = write_series(tmp_path / "s", np.zeros((4, 4, 1), np.int16), np.eye(4), StudyInstanceUID="1.2.3.4.5.6")
    path.write_bytes(path.read_bytes().replace(b"1.2.3.4.5.6", b"DOE^JANE^XX"))
    mode = pydicom.config.settings.reading_validation_mode
    with ThreadPoolExecutor(1) as other:
        first, second = dataset_of(path), dataset_of(path)
        first.__enter__()
        dataset = other.submit(second.__enter__).result()
        first.__exit__(None, None, None)
        assert "DOE" in other.submit(lambda: str(dataset.StudyInstanceUID)).result()
        other.submit(second.__exit__, None, None, None).result()
    assert pydicom.config.settings.reading_validation_mode == mode


def test_a_scaling_of_blanks_is_none(tmp_path: Path, write_series) -> None:
    """As one without a length, and as the browser's page reads it."""
    path = write_series(tmp_path / "s", DATA[:, :, :1], AXIAL, RescaleSlope="2", RescaleIntercept="7")[0]
    raw = path.read_bytes()
    for element, value in ((b"\x52\x10", b"7 "), (b"\x53\x10", b"2 ")):
        stated = b"\x28\0" + element + b"DS\2\0"
        assert stated + value in raw
        raw = raw.replace(stated + value, stated + b"  ")
    path.write_bytes(raw)
    np.testing.assert_array_equal(read_volume(path).data[0], DATA[:, :, :1])
