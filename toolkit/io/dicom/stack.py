"""Slices of one series stacked along their normal: they agree, and lie evenly in a straight line."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attunet.errors import InputError
from attunet.io.dicom.slices import COMMON, Slice

SAME_PLACE = "; leave one out, or put phases into folders of their own"
SAME_FRAMES = ", as phases and echoes do: convert it to a NIfTI file for each, e.g. with dcm2niix"
GAP_TOLERANCE = 0.1  # of the slice spacing
ROUNDING_MM, MAX_ROUNDING = 0.101, 0.25  # positions rounded to 0.1 mm, where that is a small part of the spacing
DIRECTION_TOLERANCE = 1e-3
MAX_SHIFT = 0.5  # voxels from a slice's place in the volume, along each axis


class SeveralSeries(InputError):
    """Slices of a folder are of several series."""


def in_order(path: Path, slices: Sequence[Slice]) -> tuple[list[Slice], np.ndarray]:
    """The slices along their normal, and the affine in RAS+ of `(column, row, slice)`."""
    first = slices[0]
    directions, pixel_mm = first.place.directions, first.place.pixel_mm
    for other in slices[1:]:
        common = zip(COMMON, first.identity[1:], other.identity[1:], strict=True)
        differing = [name for name, a, b in common if a != b]
        if differing[:1] == ["SeriesInstanceUID"]:
            differ = f"{other.name} is of another than {first.name}"
            raise SeveralSeries(f"{path}: the folder must hold one series, {differ}")
        if differing:
            rule = f"slices of a series must agree in {differing[0]}, {other.name} differs from {first.name}"
            raise InputError(f"{path}: {rule}; put each patient's and each scan's into a folder of its own")
        same_grid = other.pixels.shape == first.pixels.shape and np.allclose(other.place.pixel_mm, pixel_mm, rtol=1e-4)
        if not same_grid or np.abs(other.place.directions - directions).max() > DIRECTION_TOLERANCE:
            differ = f"{other.name} differs from {first.name}"
            raise InputError(f"{path}: slices must agree in size, spacing and direction, {differ}")
    normal = np.cross(*directions)
    ordered = sorted(slices, key=lambda s: float(s.place.position @ normal))
    step = normal * first.place.thickness
    if len(ordered) > 1:
        _check_gaps(path, ordered, normal)
        step = (ordered[-1].place.position - ordered[0].place.position) / (len(ordered) - 1)
    affine = np.eye(4)
    affine[:3, 0] = directions[0] * pixel_mm[1]
    affine[:3, 1] = directions[1] * pixel_mm[0]
    affine[:3, 2] = step
    affine[:3, 3] = ordered[0].place.position
    _check_places(path, ordered, affine)
    affine[:2] *= -1  # DICOM's left and posterior to right and anterior
    return ordered, affine


def _check_gaps(path: Path, slices: Sequence[Slice], normal: np.ndarray) -> None:
    gaps = np.diff([s.place.position @ normal for s in slices])
    typical = float(np.median(gaps))
    if gaps.min() <= 1e-3:
        at = int(gaps.argmin())
        one, other = slices[at].name, slices[at + 1].name
        if one == other:
            raise InputError(f"{path}: {one} has several frames in the same place{SAME_FRAMES}")
        raise InputError(f"{path}: two slices lie in the same place, {one} and {other}{SAME_PLACE}")
    if np.abs(gaps - typical).max() > max(GAP_TOLERANCE * typical, min(ROUNDING_MM, MAX_ROUNDING * typical)):
        at = int(np.abs(gaps - typical).argmax())
        apart = f"{slices[at].name} and {slices[at + 1].name} are {gaps[at]:g} mm apart: is one missing?"
        raise InputError(f"{path}: slices must be evenly spaced, {typical:g} mm apart, but {apart}")


def _check_places(path: Path, slices: Sequence[Slice], affine: np.ndarray) -> None:
    """Raise InputError for a slice that lies elsewhere than the volume's axis of slices goes, as after a shift."""
    ideal = affine[:3, 3] + np.arange(len(slices))[:, None] * affine[:3, 2]
    away = np.array([s.place.position for s in slices]) - ideal
    voxels = np.abs(np.linalg.solve(affine[:3, :3], away.T)).max(axis=0)
    if voxels.max() > MAX_SHIFT:
        at = int(voxels.argmax())
        shifted = f"{slices[at].name} is {voxels[at]:.2g} voxels away from the line of the first to the last"
        raise InputError(f"{path}: slices must lie in a straight line, evenly, but {shifted}")
