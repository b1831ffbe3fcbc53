"""A label map of a DICOM series as a DICOM Segmentation object, through highdicom (the extra `dicom-seg`)."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from attunet.classes import Classes
from attunet.errors import InputError
from attunet.io.dicom import SliceNames
from attunet.io.dicom_file import read_header
from attunet.io.reading import FILE_ERRORS
from attunet.version import __version__
from attunet.volumes.volume import Volume

SCHEME = "99ATTUNET"  # a private coding scheme: a stranger's class names have no code in a public one
SERIES_NUMBER = 9100
NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality")
MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
    *("ReferringPhysicianName", "SeriesNumber", "InstanceNumber"),
)


def segmentation_of(path: Path, indices: np.ndarray, classes: Classes, like: Volume) -> Any:
    """Class indices `(X, Y, Z)` of a volume that was read from a series, as a highdicom Segmentation: binary, a segment per class.

    Segment n is class n, with the class's name and, as its code, the label value. As DICOM has it, the object belongs to the series'
    patient and study, so it repeats what the series says of them.
    path: for messages. Raises InputError where the series lacks what that needs.
    """
    if not isinstance(like.header, SliceNames):
        raise InputError(f"{path}: DICOM SEG can be written for DICOM series alone, the input is none")
    try:
        from highdicom.seg import Segmentation as DicomSegmentation
        from highdicom.seg import SegmentationTypeValues
        from highdicom.uid import UID
    except ImportError:
        raise InputError(f"{path}: DICOM SEG needs highdicom, which is not installed: pip install 'attunet[dicom-seg]'") from None
    headers = [_header(like.header.folder / name, like.spacing[2]) for name in like.header.names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote the header, and with it a patient
        try:
            return DicomSegmentation(
                source_images=headers,
                pixel_array=np.ascontiguousarray(indices.transpose(2, 1, 0), dtype=np.uint8),
                segmentation_type=SegmentationTypeValues.BINARY,
                segment_descriptions=[_describe(number, classes) for number in range(1, len(classes))],
                series_instance_uid=UID(),
                series_number=SERIES_NUMBER,
                sop_instance_uid=UID(),
                instance_number=1,
                manufacturer="attunet",
                manufacturer_model_name="attunet",
                software_versions=__version__,
                device_serial_number="0",
                content_label="SEGMENTATION",
                series_description="Segmentation by attunet, not a medical device",
            )
        except FILE_ERRORS as error:
            raise InputError(f"{like.header.folder}: does not make a DICOM SEG: {type(error).__name__}") from None


def _header(path: Path, thickness_mm: float) -> Any:
    header = read_header(path)
    if missing := [name for name in NEEDED if not header.get(name)]:
        raise InputError(f"{path}: DICOM SEG needs the element {missing[0]}, which the file lacks; write .nii.gz instead")
    for name in MAY_BE_EMPTY:
        if name not in header:
            setattr(header, name, None)
    if not header.get("SliceThickness"):
        header.SliceThickness = f"{thickness_mm:.9g}"
    return header


def _describe(number: int, classes: Classes) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    name = re.sub(r"[\\\x00-\x1f]", " ", classes.names[number])[:64]
    return SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=Code(str(classes.values[number]), SCHEME, name),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence("attunet", codes.DCM.ArtificialIntelligence, __version__),
    )
