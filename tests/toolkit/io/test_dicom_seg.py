"""A label map as DICOM SEG: read back by highdicom it is the label map, on the grid of the series."""

import json
from pathlib import Path

import numpy as np
import pytest

from attunet.classes import Classes
from attunet.errors import InputError
from attunet.io.dicom.organ_codes import ORGANS, code_of, read_codes
from attunet.io.dicom.segmentation import check_segmentation_file
from attunet.io.readers import read_volume
from attunet.io.writers import write_labels
from attunet.volumes.volume import Volume

hd = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")
CIELabColor = pytest.importorskip("highdicom.color").CIELabColor

CLASSES = Classes(("background", "liver", "left kidney"), (0, 63, 189))
STUDY = {
    "StudyInstanceUID": "1.2.826.0.1.5",
    "FrameOfReferenceUID": "1.2.826.0.1.6",
    "PatientName": "Doe^Jane",
    "PatientID": "7",
}


@pytest.fixture
def series(tmp_path: Path, write_series) -> Path:
    """An oblique series whose files are not named in the order of its slices."""
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.5, -2.0, 4.0])
    affine[:3, 3] = (40, -30, 12)
    data = np.random.default_rng(0).integers(0, 900, (9, 7, 5)).astype(np.int16)
    for index, path in enumerate(write_series(tmp_path / "series", data, affine, **STUDY)):
        path.rename(path.with_name(f"{(3 * index) % 5}.dcm"))
    return tmp_path / "series"


def test_segments_are_the_classes_on_the_grid_of_the_series(series: Path, tmp_path: Path) -> None:
    volume = read_volume(series)
    indices = np.random.default_rng(1).integers(0, 3, volume.shape).astype(np.uint8)
    indices[:, :, 2] = 0  # a slice without any
    write_labels(tmp_path / "out.dcm", indices, CLASSES, volume)
    made = hd.seg.segread(tmp_path / "out.dcm")
    assert [made.get_segment_description(n).segment_label for n in made.segment_numbers] == ["liver", "left kidney"]
    types = [made.get_segment_description(n).segmented_property_type for n in made.segment_numbers]
    assert [(code.scheme_designator, code.value) for code in types] == [("SCT", "10200004"), ("SCT", "64033007")]
    assert types[1].SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "7771000"  # left
    for number, name in enumerate(CLASSES.colors[1:], 1):
        red, green, blue = (int(name[at : at + 2], 16) for at in (1, 3, 5))
        colour = made.get_segment_description(number).RecommendedDisplayCIELabValue
        np.testing.assert_allclose(CIELabColor.from_dicom_value(colour).to_rgb(), (red, green, blue), atol=2)
    found = made.get_volume(combine_segments=True, rescale_fractional=False)
    # highdicom's axes and directions are its own: every voxel of ours is looked up by its place in space.
    places = np.stack(np.meshgrid(*(np.arange(n) for n in volume.shape), [1], indexing="ij"), axis=-1).reshape(-1, 4)
    lps = (places @ (np.diag([-1, -1, 1, 1]) @ volume.affine).T) @ np.linalg.inv(found.affine).T
    at = np.rint(lps[:, :3]).astype(int)
    np.testing.assert_allclose(lps[:, :3], at, atol=0.01)
    inside = ((at >= 0) & (at < found.array.shape)).all(axis=1)  # slices without a segment may be left out
    values = np.zeros(len(at), int)
    values[inside] = found.array[tuple(at[inside].T)]
    np.testing.assert_array_equal(values.reshape(volume.shape), indices)


@pytest.mark.parametrize("said", ["6", "-4", "0"])
def test_slices_lie_as_far_apart_as_their_positions_say(tmp_path: Path, series: Path, edit_dicom, said) -> None:
    for path in series.iterdir():
        edit_dicom(path, SpacingBetweenSlices=said)
    volume = read_volume(series)
    write_labels(tmp_path / "out.dcm", np.ones(volume.shape, np.uint8), CLASSES, volume)
    made = hd.seg.segread(tmp_path / "out.dcm")
    assert made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices == pytest.approx(4)
    assert made.get_volume(combine_segments=True, rescale_fractional=False).spacing[0] == pytest.approx(4)


def test_codes_are_those_of_dicom_a_users_or_private(tmp_path: Path, series: Path) -> None:
    values = {name: code_of(name, 1, {}).value for name in ORGANS}
    assert len(set(values.values())) == len(ORGANS)
    assert values["liver"] == code_of("Liver", 2, {}).value == "10200004"
    assert values["inferior vena cava"] == code_of("postcava", 3, {}).value == "64131007"
    file = tmp_path / "codes.json"
    file.write_text('{"lobe A": ["SCT", "45653009", "Structure of upper lobe of lung"]}')
    own = read_codes(file)
    assert code_of("lobe A", 3, own).value == "45653009"
    assert (code_of("lobe B", 3, own).scheme, code_of("lobe B", 3, own).value) == ("99ATTUNET", "3")
    for name in ("kidney_right", "right kidney", "Right-Kidney"):
        assert (code_of(name, 1, {}).value, code_of(name, 1, {}).side) == ("64033007", ("24028007", "Right"))
    volume = read_volume(series)
    classes = Classes(("background", "lobe A"), (0, 3))
    write_labels(tmp_path / "out.dcm", np.ones(volume.shape, np.uint8), classes, volume, codes=own)
    made = hd.seg.segread(tmp_path / "out.dcm")
    assert made.get_segment_description(1).segmented_property_type.meaning == "Structure of upper lobe of lung"
    for wrong in ("45653009", ["99X", r"a\b", "two values"], ["99X", "", "none"], ["99X", "a"]):
        file.write_text(json.dumps({"lobe A": wrong}))
        with pytest.raises(InputError, match=r"codes\.json: 'lobe A' must have a scheme and a value"):
            read_codes(file)


def test_the_object_belongs_to_the_patient_and_the_study_and_says_what_made_it(series: Path, tmp_path: Path) -> None:
    volume = read_volume(series)
    write_labels(tmp_path / "out.dcm", np.ones(volume.shape, np.uint8), CLASSES, volume)
    made = pydicom.dcmread(tmp_path / "out.dcm")
    assert (made.Modality, made.StudyInstanceUID, str(made.PatientName)) == ("SEG", "1.2.826.0.1.5", "Doe^Jane")
    assert made.SeriesInstanceUID != pydicom.dcmread(series / "0.dcm").SeriesInstanceUID
    assert "not a medical device" in made.SeriesDescription


def test_the_patient_of_a_series_that_came_in_its_place_is_not_taken(
    series: Path, tmp_path: Path, write_series, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    volume = read_volume(Path(series.name))
    monkeypatch.chdir("/")
    write_labels(tmp_path / "out.dcm", np.ones(volume.shape, np.uint8), CLASSES, volume)
    other = STUDY | {"PatientID": "8", "PatientName": "Roe^Richard"}
    paths = write_series(tmp_path / "other", volume.data[0].astype(np.int16), volume.affine, **other)
    for index, path in enumerate(paths):
        path.rename(series / f"{(3 * index) % 5}.dcm")  # of the same SOPInstanceUIDs
    with pytest.raises(InputError, match="is another slice than the one that was segmented"):
        write_labels(tmp_path / "again.dcm", np.ones(volume.shape, np.uint8), CLASSES, volume)
    assert not (tmp_path / "again.dcm").exists()


def test_nothing_found_is_a_segmentation_too(series: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    volume = read_volume(series)
    write_labels(tmp_path / "out.dcm", np.zeros(volume.shape, np.uint8), CLASSES, volume)
    assert caplog.text == ""
    assert not hd.seg.segread(tmp_path / "out.dcm").pixel_array.any()


def test_a_segmentation_that_another_program_compressed_is_whole(tmp_path: Path, write_series) -> None:
    write_series(tmp_path / "large", np.zeros((64, 64, 4), np.int16), np.diag([-1.5, -1.5, 4, 1]), **STUDY)
    volume, path = read_volume(tmp_path / "large"), tmp_path / "out.dcm"
    write_labels(path, np.ones(volume.shape, np.uint8), CLASSES, volume)
    check_segmentation_file(path)
    made = pydicom.dcmread(path)
    frames = 255 * made.pixel_array.astype(np.uint8)
    made.SegmentationType, made.BitsAllocated, made.BitsStored, made.HighBit = "FRACTIONAL", 8, 8, 7
    made.compress(pydicom.uid.RLELossless, frames, encoding_plugin="pydicom", generate_instance_uid=False)
    made.save_as(path)
    check_segmentation_file(path)
    made.NumberOfFrames += 1
    made.save_as(path)
    with pytest.raises(InputError, match=r"out\.dcm: "):
        check_segmentation_file(path)


def test_what_makes_no_segmentation_is_one_line(series: Path, tmp_path: Path, write_series) -> None:
    for path in (tmp_path / "out.dcm",):
        with pytest.raises(InputError, match="for DICOM series alone"):
            write_labels(path, np.zeros((4, 4, 2), np.uint8), CLASSES, Volume(np.zeros((1, 4, 4, 2)), np.eye(4)))
        write_series(tmp_path / "bare", np.zeros((4, 4, 2), np.int16), np.eye(4))
        with pytest.raises(InputError, match="needs the element StudyInstanceUID"):
            write_labels(path, np.zeros((4, 4, 2), np.uint8), CLASSES, read_volume(tmp_path / "bare"))
        assert not path.exists()


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "SOPClassUID", "StudyDate", "PositionReferenceIndicator"])
def test_an_element_that_cannot_be_converted_or_written_again_is_one_line(
    series: Path, tmp_path: Path, keyword: str
) -> None:
    """An element in another representation than the standard's, a sequence with an item that is damaged inside."""
    volume = read_volume(series)
    item = b"\xfe\xff\x00\xe0\x10\0\0\0" + b"\x08\0\x50\x11FD\x04\0abc " + bytes(4)
    tag = pydicom.tag.Tag(keyword)
    for path in series.iterdir():
        dataset = pydicom.dcmread(path)
        dataset[tag] = pydicom.dataelem.RawDataElement(tag, "SQ", len(item), item, 0, False, True)
        dataset.save_as(path)
    with pytest.raises(InputError, match=r"cannot be read as DICOM|does not make a DICOM SEG") as error:
        write_labels(tmp_path / "out.dcm", np.ones(volume.shape, np.uint8), CLASSES, volume)
    assert "abc" not in str(error.value)
    assert not (tmp_path / "out.dcm").exists()


@pytest.mark.parametrize(
    ("character_set", "patient"),
    [
        ("ISO_IR 100", "Müller^Jörg"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        ("GB18030", "王^小东"),
        (None, "Doe^J"),
    ],
)
def test_names_of_classes_and_patients_keep_their_characters(
    series: Path, tmp_path: Path, edit_dicom, character_set: str | list[str] | None, patient: str
) -> None:
    for path in series.iterdir():
        elements = {"PatientName": patient} | ({"SpecificCharacterSet": character_set} if character_set else {})
        edit_dicom(path, **elements)
    volume = read_volume(series)
    classes = Classes(("background", "肝臓", "膵臓", " "), (0, 1, 2, 3))
    write_labels(tmp_path / "out.dcm", np.ones(volume.shape, np.uint8), classes, volume)
    made = hd.seg.segread(tmp_path / "out.dcm")
    assert [segment.SegmentLabel for segment in made.SegmentSequence] == ["肝臓", "膵臓", "class 3"]
    assert str(made.PatientName) == patient


def test_copies_of_one_slice_are_no_reference(series: Path, tmp_path: Path, edit_dicom, capfd) -> None:
    for path in series.iterdir():
        edit_dicom(path, SOPInstanceUID="1.2.826.0.1.77")
    volume = read_volume(series)
    with pytest.raises(InputError, match="DICOM SEG needs slices of different SOPInstanceUIDs"):
        write_labels(tmp_path / "out.dcm", np.ones(volume.shape, np.uint8), CLASSES, volume)
    assert capfd.readouterr() == ("", "")
