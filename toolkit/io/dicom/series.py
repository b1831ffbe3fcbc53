"""One DICOM series, a file per slice or one file of many frames. Of a header,
geometry and a hash of the PatientID are read.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

import numpy as np

from attunet.decisions import Decision, choice
from attunet.errors import InputError
from attunet.io.dicom.choose_series import RULE, choose_series, several_series
from attunet.io.dicom.file import WITHOUT_A_PLACE, check_kind, frames_of, is_dicom, lacks_preamble, with_dataset
from attunet.io.reading import MAX_VOXELS, ReadOptions, checked_affine
from attunet.io.refusal import AGAIN, refusal
from attunet.volumes.volume import Volume

if TYPE_CHECKING:
    from pydicom import FileDataset

MAX_SLICES = 16384
# Identifiers that programs put in place of a patient's
STAND_IN = re.compile("anon|unknown|dummy|none|deid|removed", re.IGNORECASE)
SAME_PLACE = "; leave one out, or put phases into folders of their own"
GAP_TOLERANCE = 0.1  # of the slice spacing
DIRECTION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class SliceNames:
    """The files of a series in the order of its slices, and their folder.

    It is a volume's `header`: masks in files of their own find their slice by it, and a segmentation its series.
    """

    folder: Path
    names: tuple[str, ...]


class _SeveralSeries(InputError):
    """Slices of a folder are of several series."""


@dataclass(frozen=True, eq=False)
class _Slice:
    name: str
    pixels: np.ndarray  # (rows, columns)
    position: np.ndarray
    directions: np.ndarray  # (2, 3): along a row, down a column
    pixel_mm: tuple[float, float]  # between rows, between columns
    thickness: float
    series: str
    patient_hash: str | None


def read_series(path: Path, options: ReadOptions) -> Volume:
    """Reads the one DICOM series of a folder, or a single file.

    Files that are no DICOM are left out, and so is a DICOMDIR.

    Args:
        path: the folder or the file.
        options: the user's readings.

    Returns:
        `(1, X, Y, Z)`: X along a row's columns, Y down the rows, Z along the normal; rescaled slice by slice.

    Raises:
        InputError: where slices differ in size, spacing, direction or series, lie in the same place or unevenly, or
            where a file is damaged, in colour, or is no image of slices.
    """
    files = _files(path, options)
    try:
        return _read_files(path, files, options)
    except InputError as error:
        if RULE in options.choices or not (listed := several_series(files)):
            raise
        raise InputError(
            f"{path}: {listed}" if isinstance(error, _SeveralSeries) else f"{error}; {path} {listed}"
        ) from None


def _read_files(path: Path, files: Sequence[Path], options: ReadOptions) -> Volume:
    if not files:
        raise InputError(f"{path}: the folder has no DICOM files")
    if len(files) > MAX_SLICES:
        raise InputError(f"{path}: at most {MAX_SLICES} slices are supported, got {len(files)}")
    slices: list[_Slice] = []
    decisions: dict[Decision, None] = {}
    voxels = 0
    for file in files:
        for one, made in _read_file(file, options):
            slices.append(one)
            decisions |= dict.fromkeys(made)
            voxels += one.pixels.size
        if voxels > MAX_VOXELS:
            raise InputError(f"{path}: at most {MAX_VOXELS:,} voxels are supported")
    if any(_without_preamble(file) for file in files):
        decisions[Decision("dicom-preamble", "files without the 128-byte preamble are read too")] = None
    slices, affine = _in_order(path, slices)
    data = np.stack([s.pixels.T for s in slices], axis=-1)[None]
    if data.dtype == np.float64:
        data = data.astype(np.float32)  # slices of large integers beside rescaled ones
    names = SliceNames(path.parent if path.is_file() else path, tuple(s.name for s in slices))
    patients = {s.patient_hash for s in slices}
    patient_hash = patients.pop() if len(patients) == 1 else None
    return Volume(
        data, checked_affine(path, affine), header=names, decisions=tuple(decisions), patient_hash=patient_hash
    )


def series_files(folder: Path) -> list[Path]:
    """The DICOM files directly in a folder, sorted; links, hidden files and DICOMDIR are left out."""
    regular = (p for p in folder.iterdir() if p.is_file() and not p.is_symlink() and not p.name.startswith("."))
    return sorted(p for p in regular if p.name.upper() != "DICOMDIR" and is_dicom(p))


def _files(path: Path, options: ReadOptions) -> list[Path]:
    if path.is_dir():
        files = series_files(path)
        files = (
            [f for f in files if not _without_preamble(f)]
            if choice("dicom-preamble", options.choices) == "skip"
            else files
        )
        return choose_series(path, files, options.choices[RULE]) if RULE in options.choices else files
    if not is_dicom(path):
        raise refusal(path, "DICOM", f"bytes 129 to 132 must be DICM; is it damaged? {AGAIN}")
    return [path]


def _without_preamble(path: Path) -> bool:
    with path.open("rb") as file:
        return lacks_preamble(file.read(132))


def _read_file(path: Path, options: ReadOptions) -> list[tuple[_Slice, list[Decision]]]:
    """The slices of a file, one or one for each frame, with the decisions about each."""

    def slices(dataset: "FileDataset", syntax: str) -> list[tuple[_Slice, list[Decision]]]:
        check_kind(path, dataset)
        geometries = list(_geometries(path, dataset))
        stored, decisions = frames_of(path, dataset, syntax, options.choices)
        if len(geometries) != len(stored):
            raise InputError(
                f"{path}: says where {len(geometries)} of its {len(stored)} frames lie; a volume needs all"
            )
        series, patient = str(dataset.get("SeriesInstanceUID", "")), _patient_hash(dataset)
        return [
            (_slice(path.name, series, patient, frame, geometry), decisions)
            for frame, geometry in zip(stored, geometries, strict=True)
        ]

    return with_dataset(path, slices)


class FrameGeometry(TypedDict, total=False):
    """Elements by their keywords; None for one that is empty."""

    ImagePositionPatient: Sequence[float]
    ImageOrientationPatient: Sequence[float]
    PixelSpacing: Sequence[float]
    SliceThickness: float | None
    SpacingBetweenSlices: float | None
    RescaleSlope: float | None
    RescaleIntercept: float | None


def _geometries(path: Path, dataset: "FileDataset") -> Iterator[FrameGeometry]:
    """The elements that say where a frame lies and how its values are scaled, one dictionary for each frame."""
    names = (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
        "SpacingBetweenSlices",
    )
    scaling = ("RescaleSlope", "RescaleIntercept")
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        if (frames := int(dataset.get("NumberOfFrames") or 1)) > 1:
            raise InputError(
                f"{path}: has {frames} frames that do not say where they lie (no PerFrameFunctionalGroupsSequence)"
            )
        for name in names[:3]:
            getattr(dataset, name)  # an AttributeError names what is missing
        yield cast(FrameGeometry, {name: dataset.get(name) for name in (*names, *scaling)})
        return
    shared = dataset.get("SharedFunctionalGroupsSequence") or [None]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        values: dict[str, object] = {}
        for group in (shared[0], frame):
            for sequence in group or ():
                if sequence.VR == "SQ" and sequence.value:
                    values |= {
                        name: sequence.value[0].get(name) for name in (*names, *scaling) if name in sequence.value[0]
                    }
        if missing := [name for name in names[:3] if values.get(name) is None]:
            raise InputError(
                f"{path}: is no slice of a volume: a frame lacks the element {missing[0]}{WITHOUT_A_PLACE}"
            )
        yield cast(FrameGeometry, values)


def _patient_hash(dataset: "FileDataset") -> str | None:
    """SHA-256 of the patient's identifier; None where it is missing or a stand-in."""
    identifier = str(dataset.get("PatientID") or "").strip()
    if not identifier.strip("0") or STAND_IN.search(identifier):
        return None
    return hashlib.sha256(
        f"{identifier}\0{dataset.get('IssuerOfPatientID') or ''}".encode(errors="replace")
    ).hexdigest()


def _slice(name: str, series: str, patient_hash: str | None, stored: np.ndarray, geometry: FrameGeometry) -> _Slice:
    slope, intercept = float(geometry.get("RescaleSlope") or 1), float(geometry.get("RescaleIntercept") or 0)
    vertical, horizontal = _numbers(geometry["PixelSpacing"], 2)
    return _Slice(
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


def _in_order(path: Path, slices: Sequence[_Slice]) -> tuple[list[_Slice], np.ndarray]:
    """The slices along their normal, and the affine in RAS+ of `(column, row, slice)`."""
    first = slices[0]
    for other in slices[1:]:
        if other.series != first.series:
            raise _SeveralSeries(
                f"{path}: the folder must hold one series, {other.name} is of another than {first.name}"
            )
        same_grid = other.pixels.shape == first.pixels.shape and np.allclose(other.pixel_mm, first.pixel_mm, rtol=1e-4)
        if not same_grid or np.abs(other.directions - first.directions).max() > DIRECTION_TOLERANCE:
            raise InputError(
                f"{path}: slices must agree in size, spacing and direction, {other.name} differs from {first.name}"
            )
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


def _check_gaps(path: Path, slices: Sequence[_Slice], normal: np.ndarray) -> None:
    gaps = np.diff([s.position @ normal for s in slices])
    typical = float(np.median(gaps))
    if gaps.min() <= 1e-3:
        at = int(gaps.argmin())
        raise InputError(
            f"{path}: two slices lie in the same place, {slices[at].name} and {slices[at + 1].name}{SAME_PLACE}"
        )
    if np.abs(gaps - typical).max() > GAP_TOLERANCE * typical:
        at = int(np.abs(gaps - typical).argmax())
        raise InputError(
            f"{path}: slices must be evenly spaced, {typical:g} mm apart, but {slices[at].name} and "
            f"{slices[at + 1].name} "
            f"are {gaps[at]:g} mm apart: is one missing?"
        )
