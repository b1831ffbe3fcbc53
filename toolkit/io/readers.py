"""Files to volumes and label arrays. Strangers made the files: headers are checked before memory is asked for.

Only InputError comes out, one line with the file and the rule.
"""

from pathlib import Path

import numpy as np

from attunet.errors import InputError
from attunet.io.dicom import is_dicom, read_series
from attunet.io.images import IMAGE_SUFFIXES, read_picture
from attunet.io.nifti import NIFTI_SUFFIXES, read_nifti
from attunet.volumes.volume import Volume

SUFFIXES = (*NIFTI_SUFFIXES, *IMAGE_SUFFIXES, ".dcm")


def read_volume(path: Path | str, *, channels: int | None = 1) -> Volume:
    """An image volume: NIfTI, a folder with one DICOM series, PNG, TIFF, JPEG, BMP or GIF; scaling as the header says; every voxel finite.

    channels: how many a model takes. A NIfTI's fourth axis is taken as channels where it has that length (None: any length).
    """
    path = Path(path)
    volume = _read(path, channels)
    if np.issubdtype(volume.data.dtype, np.floating) and (bad := int(volume.data.size - np.isfinite(volume.data).sum())):
        raise InputError(f"{path}: voxels must be finite numbers, {bad} of {volume.data.size} are NaN or infinite")
    return volume


def read_label_array(path: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """A label map as whole numbers `(X, Y, Z)`, and its affine. Floats are taken when they are whole."""
    path = Path(path)
    volume = read_picture(path, labels=True) if path.name.lower().endswith(IMAGE_SUFFIXES) and path.is_file() else _read(path, 1)
    labels = volume.data[0]
    if np.issubdtype(labels.dtype, np.floating):
        whole = np.isfinite(labels) & (np.rint(labels) == labels)
        if not whole.all():
            raise InputError(f"{path}: label values must be whole numbers, got {labels[~whole][0]}")
        if np.abs(labels).max() > np.iinfo(np.int32).max:
            raise InputError(f"{path}: label values must fit 32 bits, got {np.abs(labels).max():g}")
        labels = labels.astype(np.int32)
    return labels, volume.affine


def is_readable(path: Path) -> bool:
    """Whether the file's name is of a format that is read here."""
    return path.name.lower().endswith(SUFFIXES)


def is_single_file(path: Path) -> bool:
    """Whether the file's name is of a format in which one file holds a whole image or mask, unlike DICOM."""
    return path.name.lower().endswith((*NIFTI_SUFFIXES, *IMAGE_SUFFIXES))


def stem_of(path: Path) -> str:
    """The file's name without the ending of its format; `.nii.gz` counts as one."""
    ending = max((s for s in SUFFIXES if path.name.lower().endswith(s)), key=len, default="")
    return path.name[: len(path.name) - len(ending)]


def _read(path: Path, channels: int | None) -> Volume:
    if not path.exists():
        raise InputError(f"{path}: no such file")
    name = path.name.lower()
    if path.is_dir() or name.endswith(".dcm"):
        return read_series(path)
    if name.endswith(NIFTI_SUFFIXES):
        volume = read_nifti(path, frames=channels != 1)
        if channels is not None and len(volume.data) not in (1, channels):
            raise InputError(f"{path}: a 4D image must have {channels} channels, got {len(volume.data)}")
        return volume
    if name.endswith(IMAGE_SUFFIXES):
        return read_picture(path)
    if is_dicom(path):
        return read_series(path)
    raise InputError(f"{path}: must be NIfTI (.nii, .nii.gz), DICOM (a folder with one series, or .dcm), PNG, TIFF, JPEG, BMP or GIF")
