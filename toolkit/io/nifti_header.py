"""Geometry of a NIfTI header (sform, qform, pixdim, codes, units), often filled in partly or against itself."""

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import shape_zoom_affine

from attunet.decisions import Choices, Decision, choice
from attunet.errors import InputError
from attunet.io.reading import checked_affine
from attunet.volumes.volume import Volume

SAME_SPACING = 0.01  # relative difference up to which two spacings are one, rounded differently
KNOWN_CODES = range(6)  # of qform and sform
# Code of xyzt_units: its length in mm; 0 is "unknown", which is usually mm
UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
UNIT_NAMES = {1: "metres", 3: "micrometres"}
MAX_CONVERTED_MM = 50.0  # no scan has larger voxels, so a unit that makes them is a mistake
NIFTI1_MAX_AXIS = 2**15 - 1
GEOMETRY = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)


class Geometry(NamedTuple):
    """A header's affine `(4, 4)`, voxel index to mm in RAS+; False for one without an orientation; the decisions."""

    affine: np.ndarray
    is_oriented: bool
    decisions: tuple[Decision, ...]


def read_geometry(path: Path, header: nib.Nifti1Header, start: bytes, choices: Choices) -> Geometry:
    """The checked geometry of a header as nibabel repaired it; `start` begins with its bytes, as they are in the file.

    Raises InputError for an affine that is singular or not finite, and where sform and pixdim contradict each other and
    the user did not choose.
    """
    raw = type(header)(start[: header.template_dtype.itemsize], check=False)
    try:
        affine, is_oriented, decisions = _affine(header, choices)
        affine, converted = _in_mm(affine, int(raw["xyzt_units"]) & 7, choices)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    made = (*_odd_codes(raw), *decisions, *_unknown_sizes(raw), *converted)
    return Geometry(checked_affine(path, affine), is_oriented, made)


def _unknown_sizes(raw: nib.Nifti1Header) -> list[Decision]:
    """A decision where the voxel size comes from pixdim and pixdim does not tell it."""
    sizes = np.array(raw["pixdim"][1:4], dtype=np.float64)
    unknown = int((~np.isfinite(sizes) | (sizes == 0)).sum())
    if int(raw["sform_code"]) > 0 or not unknown:
        return []
    return [Decision("nifti-pixdim", f"the header gives no voxel size along {unknown} axes; 1 is taken")]


def _affine(header: nib.Nifti1Header, choices: Choices) -> tuple[np.ndarray, bool, list[Decision]]:
    """The affine in the header's own unit."""
    q_code, s_code = int(header["qform_code"]), int(header["sform_code"])
    if not (q_code or s_code):
        codes = choice("nifti-orientation", choices)
        directions = f"{', '.join(_WORDS[c] for c in codes)} ({codes})"
        reading = f"the header states no orientation: its axes are taken to run to {directions}"
        return _without_codes(header, codes), False, [Decision("nifti-orientation", reading)]
    if not s_code:
        return np.asarray(header.get_qform(), dtype=np.float64), True, []
    sform = np.asarray(header.get_sform(), dtype=np.float64)
    other = _pixdim_reading(header, sform, q_code)
    if other is None or not np.isfinite(sform).all() or np.linalg.matrix_rank(sform[:3, :3]) < 3:
        return sform, True, []
    difference = _difference(sform, other, "qform" if q_code else "pixdim")
    if not difference:
        return sform, True, []
    taken = choice("nifti-geometry", choices)
    if taken == "refuse":
        raise InputError(f"{difference}; choose one with --read nifti-geometry=sform or nifti-geometry=pixdim")
    decision = Decision("nifti-geometry", f"{difference}; the {taken} is taken")
    return sform if taken == "sform" else other, True, [decision]


_WORDS = {"L": "left", "R": "right", "A": "anterior", "P": "posterior", "S": "superior", "I": "inferior"}


def _without_codes(header: nib.Nifti1Header, codes: str) -> np.ndarray:
    """Axes of the header's voxel sizes to the directions of `codes`, the origin in the centre, as nibabel places it."""
    shape = (*header.get_data_shape(), 1)[:3]  # a picture has voxels of a thickness too
    affine = np.asarray(shape_zoom_affine(shape, header["pixdim"][1:4], True), dtype=np.float64)
    flips = np.diag([*(1.0 if own == wanted else -1.0 for own, wanted in zip("LAS", codes, strict=True)), 1.0])
    return np.asarray(flips @ affine)


def _pixdim_reading(header: nib.Nifti1Header, sform: np.ndarray, q_code: int) -> np.ndarray | None:
    """The affine by qform and pixdim, or by the sform's directions and pixdim; None without such a reading."""
    zooms = np.abs(np.array(header["pixdim"][1:4], dtype=np.float64))
    if not np.isfinite(zooms).all() or zooms.min() <= 0:
        return None
    if q_code:
        try:
            qform = np.asarray(header.get_qform(), dtype=np.float64)
        except (HeaderDataError, ValueError):
            return None
        return qform if np.isfinite(qform).all() else None
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    if (zooms == 1).all() or not lengths.all():  # never filled in
        return None
    other = sform.copy()
    other[:3, :3] *= zooms / lengths
    return other


def _difference(sform: np.ndarray, other: np.ndarray, name: str) -> str:
    """A clause on the first difference of two readings, in spacing or direction of the axes; empty for none."""
    first, second = (np.linalg.norm(affine[:3, :3], axis=0) for affine in (sform, other))
    if (np.abs(first - second) > SAME_SPACING * np.minimum(first, second)).any():
        one, two = (" × ".join(f"{s:.4g}" for s in spacing) for spacing in (first, second))
        return f"the sform has voxels of {one} mm, {'qform and pixdim' if name == 'qform' else name} of {two} mm"
    codes = ["".join(nib.aff2axcodes(affine)) for affine in (sform, other)]
    return "" if codes[0] == codes[1] else f"the axes run to {codes[0]} by the sform, to {codes[1]} by the {name}"


def _in_mm(affine: np.ndarray, unit: int, choices: Choices) -> tuple[np.ndarray, list[Decision]]:
    factor = UNIT_MM.get(unit, 1.0)
    if factor == 1.0:
        return affine, []
    taken, spacing = choice("nifti-units", choices), np.linalg.norm(affine[:3, :3], axis=0)
    if taken == "mm":
        return affine, [Decision("nifti-units", f"lengths are taken as mm, though the header says {UNIT_NAMES[unit]}")]
    if taken == "auto" and (spacing * factor).max() > MAX_CONVERTED_MM:
        shown = " × ".join(f"{s:.4g}" for s in spacing)
        raise InputError(
            f"the header says {UNIT_NAMES[unit]}, so that voxels of {shown} would be {factor:g} times as large in mm; "
            "choose with --read nifti-units=mm or nifti-units=convert"
        )
    scaled = affine.copy()
    scaled[:3] *= factor
    return scaled, [Decision("nifti-units", f"lengths are in {UNIT_NAMES[unit]} and converted to mm")]


def _odd_codes(raw: nib.Nifti1Header) -> list[Decision]:
    odd = [f"{name} {int(raw[name])}" for name in ("qform_code", "sform_code") if int(raw[name]) not in KNOWN_CODES]
    if (unit := int(raw["xyzt_units"]) & 7) not in UNIT_MM:
        odd.append(f"the unit {unit}")
    text = f"{' and '.join(odd)} of the header mean nothing in NIfTI and are taken as unknown"
    return [Decision("nifti-codes", text)] if odd else []


def image_like(values: np.ndarray, volume: Volume) -> nib.Nifti1Image:
    """A NIfTI image of `values` `(X, Y, Z)` with codes, units and geometry of a volume's header: both overlay anywhere.

    The affine, and mm or no unit, are used where the header is none of NIfTI. The image is NIfTI-2 where an axis is too
    long for NIfTI-1. No text of the input's header is copied.
    """
    like, kind = volume.header, nib.Nifti1Image if max(values.shape) <= NIFTI1_MAX_AXIS else nib.Nifti2Image
    if not isinstance(like, nib.Nifti1Header):
        image = kind(values, volume.affine, dtype=values.dtype)
        image.header.set_xyzt_units("mm" if volume.unit == "mm" else "unknown")
        return image
    header = kind.header_class()
    header.set_data_shape(values.shape)
    for name in GEOMETRY:
        header[name] = like[name]
    header["pixdim"][:4] = like["pixdim"][:4]
    length, time = int(like["xyzt_units"]) & 7, int(like["xyzt_units"]) & 0x38
    header["xyzt_units"] = (length if length in UNIT_MM else 0) | time
    return kind(values, None, header, dtype=values.dtype)
