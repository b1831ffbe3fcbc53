"""Files to volumes and masks. Every format is a row of `FORMATS`; headers are checked before memory is reserved.

Only InputError comes out: one line with the file and the rule.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from attunet.decisions import Choices, Decision
from attunet.errors import InputError, TooLittleMemory
from attunet.io.archives import ARCHIVE_SUFFIXES
from attunet.io.dicom.file import DICOM_SUFFIXES, is_dicom
from attunet.io.dicom.series import read_series
from attunet.io.itk.itk import ITK_SUFFIXES, read_itk, read_itk_header
from attunet.io.mgh_analyze import ANALYZE_SUFFIXES, MGH_SUFFIXES, analyze_voxels, read_analyze, read_mgh
from attunet.io.nifti import NIFTI_SUFFIXES, read_nifti
from attunet.io.pictures.images import IMAGE_SUFFIXES, read_image_file
from attunet.io.reading import FILE_ERRORS, ReadOptions
from attunet.io.refusal import refuse_unending
from attunet.volumes.geometry import shear_degrees, tilt_degrees
from attunet.volumes.intensity import check_finite
from attunet.volumes.volume import Volume

PACKED = (*ARCHIVE_SUFFIXES, ".7z", ".rar")
MAX_TILT_DEGREES = 30.0  # beyond it the nearest axes depend on small differences between scans
MAX_SHEAR_DEGREES = 1.0  # between the axes of an array, less than 90
MAX_ROUNDING = 1e-3  # how far a label value may lie from a whole number
MAX_FLOAT_LABEL = 2**24  # from it on float32 has not every whole number
NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Format:
    """One file format."""

    name: str  # as messages name it
    suffixes: tuple[str, ...]  # endings of file names, in lower case
    read: Callable[[Path, ReadOptions], Volume]
    # Endings of files that belong to a file of this format and are not read for themselves
    companions: tuple[str, ...] = ()
    single: bool = True  # one file holds a whole image or mask


FORMATS = (
    Format("NIfTI", NIFTI_SUFFIXES, read_nifti),
    Format("MGZ", MGH_SUFFIXES, read_mgh),
    Format("NRRD, MHA, MHD", ITK_SUFFIXES, read_itk, companions=(".raw", ".zraw", ".raw.gz")),
    Format("PNG, TIFF, JPEG, BMP, GIF, WebP, JPEG 2000, PPM", IMAGE_SUFFIXES, read_image_file),
    Format("Analyze (.hdr with .img)", ANALYZE_SUFFIXES, read_analyze, companions=(".img",)),
    Format("DICOM (a folder with one series, or a file)", DICOM_SUFFIXES, read_series, single=False),
)
SUFFIXES = tuple(suffix for format in FORMATS for suffix in format.suffixes)
SINGLE_FILE_SUFFIXES = tuple(suffix for format in FORMATS if format.single for suffix in format.suffixes)
COMPANIONS = tuple(suffix for format in FORMATS for suffix in format.companions)
FORMAT_NAMES = ", ".join(format.name for format in FORMATS)


def read_volume(path: Path | str, *, channels: int | None = 1, choices: Choices = NOTHING) -> Volume:
    """Reads an image volume, scaled as its header says.

    Args:
        path: a file of one of `FORMATS`, or a folder with one DICOM series.
        channels: the number that a model takes; a grey picture is accepted for any. None accepts any number.
        choices: the user's readings.

    Returns:
        The volume; every voxel is finite.

    Raises:
        InputError: for a file that cannot be read, of another number of channels, or with NaN or infinite voxels.
    """
    path = Path(path)
    volume = _read(path, ReadOptions(choices=choices))
    if volume.unit == "mm":
        volume = replace(volume, decisions=(*volume.decisions, *_tilts(volume.affine)))
    if channels is not None and volume.unit == "mm" and len(volume.data) not in (1, channels):
        raise InputError(f"{path}: must have {channels} channel{'s' if channels > 1 else ''}, got {len(volume.data)}")
    check_finite(volume.data, path)
    return volume


def _read(path: Path, options: ReadOptions) -> Volume:
    refuse_unending(path)
    try:
        with np.errstate(all="ignore"):  # what comes of strange numbers in a header is judged
            return format_of(path).read(path, options)
    except MemoryError:
        raise TooLittleMemory(f"{path}: there is too little memory to read it") from None


def _tilts(affine: np.ndarray) -> Iterator[Decision]:
    """The decisions about axes that are not the body's, or not at right angles."""
    if (tilt := tilt_degrees(affine)) > MAX_TILT_DEGREES:
        text = f"axes are tilted by {tilt:.0f} degrees; each counts as the nearest axis of the body"
        yield Decision("oblique", text)
    if (shear := shear_degrees(affine)) > MAX_SHEAR_DEGREES:
        text = f"slices are shifted against each other by {shear:.0f} degrees, as a tilted gantry does; they stay so"
        yield Decision("sheared", text)


def read_mask(path: Path | str, *, choices: Choices = NOTHING) -> Volume:
    """Reads a mask as whole numbers `(1, X, Y, Z)` on the file's grid.

    Floats are accepted when they are whole within `MAX_ROUNDING`; NaN is background where the rest is whole. Raises
    InputError for a file that cannot be read, or values that are no labels.
    """
    path = Path(path)
    volume = _read(path, ReadOptions(labels=True, choices=choices))
    if len(volume.data) != 1:
        raise InputError(f"{path}: a mask must have one channel, got {len(volume.data)}: save it as one label map")
    labels, decisions = _whole_numbers(path, volume.data)
    return replace(volume, data=labels, decisions=(*volume.decisions, *decisions))


def _whole_numbers(path: Path, labels: np.ndarray) -> tuple[np.ndarray, list[Decision]]:
    if labels.dtype.kind != "f":
        _check_range(path, labels)
        return labels, []
    decisions = []
    missing = np.isnan(labels)
    if missing.all():
        raise InputError(f"{path}: label values must be whole numbers, every one is NaN")
    if missing.any():
        labels = np.where(missing, np.float32(0), labels)
        text = "NaN in masks is background, since their other values are whole numbers"
        decisions.append(Decision("nan-labels", text))
    whole = np.isfinite(labels) & (np.abs(np.rint(labels) - labels) <= MAX_ROUNDING)
    if not whole.all():
        got = f"{labels[~whole][0]:g}"
        raise InputError(f"{path}: label values must be whole numbers, got {got}; is it a probability map?")
    if np.abs(labels).max() >= MAX_FLOAT_LABEL:
        got = f"{labels.flat[np.abs(labels).argmax()]:.9g}"
        raise InputError(
            f"{path}: label values of floating point must be below {MAX_FLOAT_LABEL:,}, so that none is rounded, got "
            f"{got}: save the mask as integers"
        )
    if (np.rint(labels) != labels).any():
        decisions.append(Decision("rounded-labels", "label values within 0.001 of whole numbers are rounded"))
    return np.rint(labels).astype(np.int32), decisions


def _check_range(path: Path, labels: np.ndarray) -> None:
    bounds = np.iinfo(np.int32)
    if odd := [value for value in (labels.min(), labels.max()) if not bounds.min <= int(value) <= bounds.max]:
        raise InputError(f"{path}: label values must fit 32 bits, got {odd[0]:g}")


def is_readable(path: Path) -> bool:
    """True where the file's name is of a format that is read here."""
    return path.name.lower().endswith(SUFFIXES)


def is_single_file(path: Path) -> bool:
    """True where the file's name is of a format in which one file holds a whole image or mask, unlike DICOM."""
    return path.name.lower().endswith(SINGLE_FILE_SUFFIXES)


def stem_of(path: Path) -> str:
    """The file's name without the ending of its format; `.nii.gz` counts as one."""
    ending = max((s for s in SUFFIXES if path.name.lower().endswith(s)), key=len, default="")
    return path.name[: len(path.name) - len(ending)]


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that an image file needs: itself, and the one beside it that has its voxels, if it is a header alone.

    Of a header that cannot be read it is the only one: the reader says what is wrong with it.
    """
    name, voxels = path.name.lower(), path
    with suppress(*FILE_ERRORS, InputError):
        if name.endswith(ITK_SUFFIXES) and path.is_file():
            voxels = read_itk_header(path).holder
        elif name.endswith(ANALYZE_SUFFIXES) and path.is_file():
            voxels = analyze_voxels(path)
    return (path,) if voxels == path else (path, voxels)


def format_of(path: Path) -> Format:
    """The format of a file or of a DICOM folder. Raises InputError for one that is not read."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    name = path.name.lower()
    by_name = next((f for f in FORMATS if name.endswith(f.suffixes)), None)
    if by_name is not None and path.is_file():
        return by_name
    if path.is_dir() or is_dicom(path):
        return FORMATS[-1]
    if name.endswith(COMPANIONS):
        header = f"name the header's file ({path.stem}.mhd or .hdr) instead"
        raise InputError(f"{path}: holds voxels without a header; {header}")
    if name.endswith(PACKED):
        where = "in which nothing is looked for here: unpack it, and name the file or the folder"
        raise InputError(f"{path}: is an archive, {where}")
    raise InputError(f"{path}: {path.suffix or 'a file without an ending'} is not read; the formats are {FORMAT_NAMES}")
