"""Slices of a DICOM series: where each lies, its own scaling, and their order along the normal."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attunet.decisions import Decision
from attunet.errors import InputError
from attunet.io.dicom.bounded_reads import items_of
from attunet.io.dicom.file import WITHOUT_A_PLACE

if TYPE_CHECKING:
    from pydicom import Dataset, FileDataset

# Identifiers that programs put in place of a patient's
STAND_IN = re.compile("anon|unknown|dummy|none|deid|removed", re.IGNORECASE)
MAX_SLICES = 16384
MAX_SKEW = 5e-3  # of the directions' lengths from 1, and of their cosine from 0: headers round
NEEDED = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
GROUPS = {  # functional groups of a file of many frames, with the elements that are read
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "MREchoSequence": ("EffectiveEchoTime",),
}
GEOMETRY = tuple(name for names in GROUPS.values() for name in names)
# What the slices of a volume have in common. Not FrameOfReferenceUID: programs that anonymise draw one for each file
COMMON = (
    *("SeriesInstanceUID", "StudyInstanceUID", "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate"),
    *("Modality", "EchoNumbers", "EchoTime", "PhotometricInterpretation", "BitsStored"),
)


@dataclass(frozen=True, eq=False)
class Place:
    """The position of a frame in the patient, and the scaling of its values."""

    position: np.ndarray
    directions: np.ndarray  # (2, 3): along a row, down a column
    pixel_mm: tuple[float, float]  # between rows, between columns
    thickness: float
    slope: float
    intercept: float


@dataclass(frozen=True, eq=False)
class Slice:
    name: str
    pixels: np.ndarray  # (rows, columns)
    place: Place
    identity: tuple[str, ...]  # SOPInstanceUID, and the values of `COMMON`
    patient_hash: str | None
    decisions: tuple[Decision, ...]


def places_of(path: Path, dataset: "FileDataset") -> Iterator[Place]:
    """The place of each frame of a file.

    Raises InputError where it is missing, or has numbers that would mirror, scale or shear an image, or make all of its
    values one.
    """
    from pydicom import Dataset

    if "PerFrameFunctionalGroupsSequence" not in dataset:
        if (frames := int(dataset.get("NumberOfFrames") or 1)) > 1:
            lacking = "do not say where they lie (no PerFrameFunctionalGroupsSequence)"
            raise InputError(f"{path}: has {frames} frames that {lacking}")
        for name in NEEDED:
            getattr(dataset, name)  # an AttributeError names what is missing
        yield _place(path, {name: dataset.get(name) for name in GEOMETRY})
        return
    shared, *_ = items_of(dataset, dataset, "SharedFunctionalGroupsSequence") or [Dataset()]
    scaling = {name: dataset.get(name) for name in ("RescaleSlope", "RescaleIntercept") if name in dataset}
    common = scaling | _geometry_of(dataset, shared)
    per_frame = items_of(dataset, dataset, "PerFrameFunctionalGroupsSequence")
    if len(per_frame) > MAX_SLICES:
        raise InputError(f"{path}: at most {MAX_SLICES:,} frames are supported, got {len(per_frame):,}")
    echo_times = set()
    for frame in per_frame:
        values = common | _geometry_of(dataset, frame)
        echo_times.add(_in_ms(values.get("EffectiveEchoTime")))
        if len(echo_times) > 1:
            advice = "convert it to a NIfTI file for each, e.g. with dcm2niix"
            raise InputError(f"{path}: has frames of several echoes (EffectiveEchoTime): {advice}")
        if missing := [name for name in NEEDED if values.get(name) is None]:
            lacking = f"a frame lacks the element {missing[0]}{WITHOUT_A_PLACE}"
            raise InputError(f"{path}: is no slice of a volume: {lacking}")
        yield _place(path, values)


def _geometry_of(dataset: "FileDataset", group: "Dataset") -> dict[str, object]:
    """The elements that the sequences of a functional group have in their first items."""
    values: dict[str, object] = {}
    for keyword, names in GROUPS.items():
        for item in items_of(dataset, group, keyword)[:1]:
            values |= {name: item.get(name) for name in names if name in item}
    return values


def identity_of(dataset: "FileDataset") -> tuple[str, ...]:
    """A file's SOPInstanceUID and its values of `COMMON`, empty where they are missing; BitsStored where values are
    inverted within them, and EchoTime to a hundredth of a ms.
    """
    values = {name: str(dataset.get(name) or "").strip() for name in ("SOPInstanceUID", *COMMON)}
    values["EchoTime"] = _in_ms(dataset.get("EchoTime"))
    if values["PhotometricInterpretation"] != "MONOCHROME1":
        values["BitsStored"] = ""
    return tuple(values.values())


def _in_ms(time: object) -> str:
    """A time as text, rounded as headers round it, without the noise of float32 first, which would part 1.795 from
    1.7949999; as it stands where it is no number, empty where it is missing.
    """
    text = "" if time is None else str(time).strip()
    try:
        return f"{round(float(text), 4):.2f}"
    except ValueError:
        return text


def patient_hash_of(dataset: "FileDataset") -> str | None:
    """SHA-256 of the patient's identifier; None where it is missing or a stand-in."""
    identifier = str(dataset.get("PatientID") or "").strip()
    if not identifier.strip("0") or STAND_IN.search(identifier):
        return None
    whole = f"{identifier}\0{dataset.get('IssuerOfPatientID') or ''}"
    return hashlib.sha256(whole.encode(errors="replace")).hexdigest()


def _place(path: Path, values: Mapping[str, Any]) -> Place:
    """The place by its elements, of which one may be None where it is empty."""
    vertical, horizontal = _numbers(values["PixelSpacing"], 2)
    if min(vertical, horizontal) <= 0:
        raise InputError(f"{path}: PixelSpacing must be above 0 mm, got {vertical:g} and {horizontal:g}")
    directions = np.array(_numbers(values["ImageOrientationPatient"], 6)).reshape(2, 3)
    if np.abs(directions @ directions.T - np.eye(2)).max() > MAX_SKEW:
        rule = "must be two directions of length 1 at right angles"
        raise InputError(f"{path}: ImageOrientationPatient {rule}; convert the series again from the scanner's export")
    stated, intercept = values.get("RescaleSlope"), float(values.get("RescaleIntercept") or 0)
    slope = 1.0 if stated in (None, "") else float(stated)  # blanks are an empty element, of which pydicom makes a text
    if not abs(slope) >= np.spacing(np.float32(abs(intercept))):  # of float32, in which values are computed
        got = f"got {slope:g} with RescaleIntercept {intercept:g}"
        raise InputError(f"{path}: RescaleSlope must tell values apart, {got}; convert the series again")
    thickness = abs(float(values.get("SpacingBetweenSlices") or values.get("SliceThickness") or 1))
    position = np.array(_numbers(values["ImagePositionPatient"], 3))
    return Place(position, directions, (vertical, horizontal), thickness, slope, intercept)


def rescaled(stored: np.ndarray, place: Place) -> np.ndarray:
    """Stored values of a frame with the scaling that the file names."""
    if (place.slope, place.intercept) == (1, 0):
        return stored
    return (stored * place.slope + place.intercept).astype(np.float32)


def _numbers(values: Iterable[float], count: int) -> list[float]:
    numbers = [float(v) for v in values]
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError("geometry")
    return numbers
