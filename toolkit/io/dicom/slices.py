"""Slices of a DICOM series: where each lies, its own scaling, and their order along the normal."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

import numpy as np

from attunet.errors import InputError
from attunet.io.dicom.bounded_reads import items_of
from attunet.io.dicom.file import WITHOUT_A_PLACE

if TYPE_CHECKING:
    from pydicom import Dataset, FileDataset

# Identifiers that programs put in place of a patient's
STAND_IN = re.compile("anon|unknown|dummy|none|deid|removed", re.IGNORECASE)
SAME_PLACE = "; leave one out, or put phases into folders of their own"
MAX_SLICES = 16384
GAP_TOLERANCE = 0.1  # of the slice spacing
DIRECTION_TOLERANCE = 1e-3
PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
GROUPS = {  # functional groups of a file of many frames, with the elements that are read
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
}
GEOMETRY = tuple(name for names in GROUPS.values() for name in names)


class SeveralSeries(InputError):
    """Slices of a folder are of several series."""


@dataclass(frozen=True, eq=False)
class Slice:
    name: str
    pixels: np.ndarray  # (rows, columns)
    position: np.ndarray
    directions: np.ndarray  # (2, 3): along a row, down a column
    pixel_mm: tuple[float, float]  # between rows, between columns
    thickness: float
    series: str
    patient_hash: str | None


class FrameGeometry(TypedDict, total=False):
    """Elements by their keywords; None for one that is empty."""

    ImagePositionPatient: Sequence[float]
    ImageOrientationPatient: Sequence[float]
    PixelSpacing: Sequence[float]
    SliceThickness: float | None
    SpacingBetweenSlices: float | None
    RescaleSlope: float | None
    RescaleIntercept: float | None


def geometries(path: Path, dataset: "FileDataset") -> Iterator[FrameGeometry]:
    """The elements that say where a frame lies and how its values are scaled, one dictionary for each frame."""
    from pydicom import Dataset

    if "PerFrameFunctionalGroupsSequence" not in dataset:
        if (frames := int(dataset.get("NumberOfFrames") or 1)) > 1:
            lacking = "do not say where they lie (no PerFrameFunctionalGroupsSequence)"
            raise InputError(f"{path}: has {frames} frames that {lacking}")
        for name in PLACE:
            getattr(dataset, name)  # an AttributeError names what is missing
        yield cast(FrameGeometry, {name: dataset.get(name) for name in GEOMETRY})
        return
    shared, *_ = items_of(dataset, dataset, "SharedFunctionalGroupsSequence") or [Dataset()]
    common = _geometry_of(dataset, shared)
    per_frame = items_of(dataset, dataset, "PerFrameFunctionalGroupsSequence")
    if len(per_frame) > MAX_SLICES:
        raise InputError(f"{path}: at most {MAX_SLICES:,} frames are supported, got {len(per_frame):,}")
    for frame in per_frame:
        values = common | _geometry_of(dataset, frame)
        if missing := [name for name in PLACE if values.get(name) is None]:
            lacking = f"a frame lacks the element {missing[0]}{WITHOUT_A_PLACE}"
            raise InputError(f"{path}: is no slice of a volume: {lacking}")
        yield cast(FrameGeometry, values)


def _geometry_of(dataset: "FileDataset", group: "Dataset") -> dict[str, object]:
    """The elements that the sequences of a functional group have in their first items."""
    values: dict[str, object] = {}
    for keyword, names in GROUPS.items():
        for item in items_of(dataset, group, keyword)[:1]:
            values |= {name: item.get(name) for name in names if name in item}
    return values


def patient_hash_of(dataset: "FileDataset") -> str | None:
    """SHA-256 of the patient's identifier; None where it is missing or a stand-in."""
    identifier = str(dataset.get("PatientID") or "").strip()
    if not identifier.strip("0") or STAND_IN.search(identifier):
        return None
    whole = f"{identifier}\0{dataset.get('IssuerOfPatientID') or ''}"
    return hashlib.sha256(whole.encode(errors="replace")).hexdigest()


def check_geometry(path: Path, geometry: FrameGeometry) -> None:
    """Raise InputError for numbers that would mirror an image, or make all of its values one."""
    spacing = _numbers(geometry["PixelSpacing"], 2)
    if min(spacing) <= 0:
        raise InputError(f"{path}: PixelSpacing must be above 0 mm, got {spacing[0]:g} and {spacing[1]:g}")
    if geometry.get("RescaleSlope") == 0:
        raise InputError(f"{path}: RescaleSlope must not be 0; convert the series again from the scanner's export")


def slice_of(name: str, series: str, patient_hash: str | None, stored: np.ndarray, geometry: FrameGeometry) -> Slice:
    """Place stored pixels of a file in space, with the rescaling that the file names.

    Example:
        >>> slice_of("IM1", dataset.SeriesInstanceUID, None, dataset.pixel_array, geometry).position  # doctest: +SKIP
    """
    slope, intercept = float(geometry.get("RescaleSlope") or 1), float(geometry.get("RescaleIntercept") or 0)
    vertical, horizontal = _numbers(geometry["PixelSpacing"], 2)
    return Slice(
        name=name,
        pixels=stored if (slope, intercept) == (1, 0) else (stored * slope + intercept).astype(np.float32),
        position=np.array(_numbers(geometry["ImagePositionPatient"], 3)),
        directions=np.array(_numbers(geometry["ImageOrientationPatient"], 6)).reshape(2, 3),
        pixel_mm=(vertical, horizontal),
        thickness=float(geometry.get("SpacingBetweenSlices") or geometry.get("SliceThickness") or 1),
        series=series,
        patient_hash=patient_hash,
    )


def _numbers(values: Iterable[float], count: int) -> list[float]:
    numbers = [float(v) for v in values]
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError("geometry")
    return numbers


def in_order(path: Path, slices: Sequence[Slice]) -> tuple[list[Slice], np.ndarray]:
    """The slices along their normal, and the affine in RAS+ of `(column, row, slice)`."""
    first = slices[0]
    for other in slices[1:]:
        if other.series != first.series:
            differ = f"{other.name} is of another than {first.name}"
            raise SeveralSeries(f"{path}: the folder must hold one series, {differ}")
        same_grid = other.pixels.shape == first.pixels.shape and np.allclose(other.pixel_mm, first.pixel_mm, rtol=1e-4)
        if not same_grid or np.abs(other.directions - first.directions).max() > DIRECTION_TOLERANCE:
            differ = f"{other.name} differs from {first.name}"
            raise InputError(f"{path}: slices must agree in size, spacing and direction, {differ}")
    normal = np.cross(*first.directions)
    ordered = sorted(slices, key=lambda s: float(s.position @ normal))
    step = normal * first.thickness
    if len(ordered) > 1:
        _check_gaps(path, ordered, normal)
        step = (ordered[-1].position - ordered[0].position) / (len(ordered) - 1)
    affine = np.eye(4)
    affine[:3, 0] = first.directions[0] * first.pixel_mm[1]
    affine[:3, 1] = first.directions[1] * first.pixel_mm[0]
    affine[:3, 2] = step
    affine[:3, 3] = ordered[0].position
    affine[:2] *= -1  # DICOM's left and posterior to right and anterior
    return ordered, affine


def _check_gaps(path: Path, slices: Sequence[Slice], normal: np.ndarray) -> None:
    gaps = np.diff([s.position @ normal for s in slices])
    typical = float(np.median(gaps))
    if gaps.min() <= 1e-3:
        at = int(gaps.argmin())
        both = f"{slices[at].name} and {slices[at + 1].name}"
        raise InputError(f"{path}: two slices lie in the same place, {both}{SAME_PLACE}")
    if np.abs(gaps - typical).max() > GAP_TOLERANCE * typical:
        at = int(np.abs(gaps - typical).argmax())
        apart = f"{slices[at].name} and {slices[at + 1].name} are {gaps[at]:g} mm apart: is one missing?"
        raise InputError(f"{path}: slices must be evenly spaced, {typical:g} mm apart, but {apart}")
