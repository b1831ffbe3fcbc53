"""A label map of a DICOM series as a DICOM Segmentation object, through highdicom (the extra `dicom-seg`)."""

import math
import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attunet.classes import Classes
from attunet.errors import InputError
from attunet.io.dicom.file import UNCOMPRESSED, dataset_of, pydicom_errors, syntax_of
from attunet.io.dicom.organ_codes import SNOMED, Code, code_of
from attunet.io.dicom.series import SliceNames
from attunet.io.dicom.slices import identity_of
from attunet.io.reading import QUIET
from attunet.io.refusal import needs
from attunet.version import __version__
from attunet.volumes.volume import Volume

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom import FileDataset

SERIES_NUMBER = 9100
UTF_8 = "ISO_IR 192"
NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality")
MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName", "SeriesNumber", "InstanceNumber"),
)


def segmentation_of(
    path: Path, indices: np.ndarray, classes: Classes, like: Volume, codes: Mapping[str, Code] | None = None
) -> bytes:
    """A label map of a DICOM series as a DICOM file of highdicom's Segmentation: binary, a segment for each class.

    Segment n is class n, with the class's name, its colour, and its code: the user's of that name in `codes`, SNOMED
    CT's where the name is an organ's, else the label value in a private scheme. As in all of DICOM, the object belongs
    to the series' patient and study and repeats their elements. Raises InputError for another input than a series with
    a file for each slice, or one that lacks a needed element; it begins with `path`. Also for files that others have
    taken the place of since `like` was read.

    Example:
        >>> content = segmentation_of(Path("case.dcm"), indices, classes, volume, {"lesion": code})  # doctest: +SKIP
        >>> made.save_as("case.dcm")  # doctest: +SKIP
    """
    if not isinstance(like.header, SliceNames):
        raise InputError(f"{path}: DICOM SEG can be written for DICOM series alone, the input is none")
    if len(set(like.header.names)) != len(like.header.names):
        raise InputError(f"{path}: DICOM SEG is written for series with a file for each slice; write .nii.gz instead")
    with needs(path, "DICOM SEG needs highdicom", "dicom-seg"):
        from highdicom.seg import Segmentation as DicomSegmentation
        from highdicom.seg import SegmentationTypeValues
        from highdicom.uid import UID
    names = like.header.names
    apart_mm = abs(np.linalg.det(like.affine[:3, :3])) / (like.spacing[0] * like.spacing[1])  # along the normal
    files = zip(names, like.header.identities, strict=True)
    headers = [_header(like.header.folder / name, identity, apart_mm, len(names)) for name, identity in files]
    if len({str(header.SOPInstanceUID) for header in headers}) != len(headers):
        raise InputError(f"{like.header.folder}: DICOM SEG needs slices of different SOPInstanceUIDs; write .nii.gz")
    with QUIET:
        try:
            made = DicomSegmentation(
                source_images=headers,
                pixel_array=np.ascontiguousarray(indices.transpose(2, 1, 0), dtype=np.uint8),
                segmentation_type=SegmentationTypeValues.BINARY,
                segment_descriptions=[_describe(number, classes, codes or {}) for number in range(1, len(classes))],
                series_instance_uid=UID(),
                series_number=SERIES_NUMBER,
                sop_instance_uid=UID(),
                instance_number=1,
                manufacturer="attunet",
                manufacturer_model_name="attunet",
                software_versions=__version__,
                device_serial_number="0",
                content_label="SEGMENTATION",
                omit_empty_frames=bool(indices.any()),  # with no frame left, highdicom would write a line of its own
                series_description="Segmentation by attunet, not a medical device",
            )
            content = BytesIO()
            made.save_as(content)
            return content.getvalue()
        except pydicom_errors() as error:
            reason = f"does not make a DICOM SEG: {type(error).__name__}; write .nii.gz instead"
            raise InputError(f"{like.header.folder}: {reason}") from None


def check_segmentation_file(path: Path) -> None:
    """Raises InputError for a file that is no DICOM Segmentation with all its pixels."""
    with dataset_of(path) as dataset:
        frames, *size = (int(dataset[key].value) for key in ("NumberOfFrames", "Rows", "Columns", "BitsAllocated"))
        if syntax_of(dataset) in UNCOMPRESSED:
            is_whole = 8 * len(dataset.PixelData) >= frames * math.prod(size)
        else:
            from pydicom.encaps import generate_frames

            is_whole = sum(1 for _ in generate_frames(dataset.PixelData, number_of_frames=frames)) == frames
        if str(dataset.get("Modality")) != "SEG" or not is_whole:
            raise InputError(f"{path}: is no whole DICOM Segmentation")


def _header(path: Path, identity: tuple[str, ...], apart_mm: float, num_files: int) -> "FileDataset":
    """The data set of a slice without its pixels, with all elements that a segmentation repeats or needs."""
    with dataset_of(path, num_files) as header:
        if identity_of(header) != identity:
            raise InputError(f"{path}: is another slice than the one that was segmented; segment the series again")
        if "PixelData" in header:
            del header.PixelData
        if missing := [name for name in NEEDED if not header.get(name)]:
            raise InputError(
                f"{path}: DICOM SEG needs the element {missing[0]}, which the file lacks; write .nii.gz instead"
            )
        for name in MAY_BE_EMPTY:
            if name not in header:
                setattr(header, name, None)
        header.SpacingBetweenSlices = f"{apart_mm:.9g}"  # as the positions say, whatever the series does
        if not header.get("SliceThickness"):
            header.SliceThickness = f"{apart_mm:.9g}"
        header.SpecificCharacterSet = UTF_8  # which has the characters of the patient's name and of the classes'
        return header


def _long_string(text: str) -> str:
    """A text as DICOM's value representation LO takes it: 64 characters, no backslash and no control character."""
    return re.sub(r"[\\\x00-\x1f]", " ", text)[:64].strip()


def _describe(number: int, classes: Classes, own: Mapping[str, Code]) -> "SegmentDescription":
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    code = code_of(classes.names[number], classes.values[number], own)
    name = _long_string(classes.names[number]) or f"class {number}"
    description = SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=CodedConcept(code.value, code.scheme, _long_string(code.meaning) or name),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            "attunet", codes.DCM.ArtificialIntelligence, __version__
        ),
        display_color=CIELabColor.from_string(classes.colors[number]),
    )
    if code.side is not None:
        property_type = description.SegmentedPropertyTypeCodeSequence[0]
        property_type.SegmentedPropertyTypeModifierCodeSequence = [CodedConcept(code.side[0], SNOMED, code.side[1])]
    return description
