"""Shapes from NIfTI headers, for layouts whose files' names do not say enough."""

from pathlib import Path

from attunet.errors import InputError
from attunet.io.nifti import NIFTI_SUFFIXES, nifti_shape


def shape_of(path: Path) -> tuple[int, ...]:
    """The shape in a NIfTI file's header; empty for another format or a damaged header, which the reader refuses."""
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        return ()
    try:
        return nifti_shape(path)
    except InputError:
        return ()


def has_frames(path: Path) -> bool:
    """True for a NIfTI file whose fourth axis is longer than 1."""
    shape = shape_of(path)
    return len(shape) > 3 and shape[3] > 1
