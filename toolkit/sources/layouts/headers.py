"""Shapes from NIfTI headers, for layouts whose files' names do not say enough."""

from pathlib import Path

import nibabel as nib

from attunet.io.nifti import NIBABEL_ERRORS, NIFTI_SUFFIXES
from attunet.io.reading import quiet_nibabel


def shape_of(path: Path) -> tuple[int, ...] | None:
    """The shape that a NIfTI file's header says; None for another format or a damaged header,
    which the reader will refuse.
    """
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        return None
    try:
        with quiet_nibabel():
            return tuple(int(n) for n in nib.load(path).shape)
    except NIBABEL_ERRORS:
        return None


def has_frames(path: Path) -> bool:
    """True for a NIfTI file whose fourth axis is longer than 1."""
    shape = shape_of(path)
    return shape is not None and len(shape) > 3 and shape[3] > 1
