"""Files to volumes and label arrays. Strangers made the files: headers are checked before memory is asked for.

Only InputError comes out, one line with the file and the rule.
"""

from pathlib import Path

import numpy as np

from attunet.errors import InputError
from attunet.nifti import NIFTI_SUFFIXES, read_nifti
from attunet.volume import Volume


def read_volume(path: Path | str) -> Volume:
    """An image volume. NIfTI: 3D, or 4D with a single frame; scaling as the header says; every voxel finite."""
    path = Path(path)
    volume = _reader(path)(path)
    if np.issubdtype(volume.data.dtype, np.floating) and (bad := int(volume.data.size - np.isfinite(volume.data).sum())):
        raise InputError(f"{path}: voxels must be finite numbers, {bad} of {volume.data.size} are NaN or infinite")
    return volume


def read_label_array(path: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """A label map as whole numbers `(X, Y, Z)`, and its affine. Floats are taken when they are whole."""
    path = Path(path)
    volume = _reader(path)(path)
    if len(volume.data) != 1:
        raise InputError(f"{path}: a label map must have one channel, got {len(volume.data)}")
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
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def _reader(path: Path):  # type: ignore[no-untyped-def]
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.name.lower().endswith(NIFTI_SUFFIXES):
        return read_nifti
    raise InputError(f"{path}: must be NIfTI ({', '.join(NIFTI_SUFFIXES)})")
