"""Label maps, and other maps, to files."""

from pathlib import Path

import nibabel as nib
import numpy as np

from attunet.atomic import write_file
from attunet.classes import Classes
from attunet.errors import InputError
from attunet.volume import Volume


def write_labels(path: Path | str, indices: np.ndarray, classes: Classes, like: Volume) -> None:
    """Class indices `(X, Y, Z)` as a NIfTI label map with the classes' own values, on the grid and with the codes of `like`.

    Written beside the target and renamed when whole. Raises InputError where the path has no NIfTI suffix or cannot be written.
    """
    assert indices.shape == like.shape, (indices.shape, like.shape)
    values = np.array(classes.values)
    values = values.astype(np.min_scalar_type(int(values.min())) if values.min() < 0 else np.uint8 if values.max() < 256 else np.int32)
    write_map(path, values[indices], like)


def write_map(path: Path | str, values: np.ndarray, like: Volume) -> None:
    """Any map `(X, Y, Z)` in the same way, with its own dtype. Of the input's header, units and codes are taken, no text."""
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{path}: the name must end in .nii or .nii.gz")
    try:
        write_file(path, lambda temporary: nib.save(_image(values, like), temporary))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None


def _image(values: np.ndarray, like: Volume) -> nib.Nifti1Image:
    image = nib.Nifti1Image(values, like.affine)
    if isinstance(like.header, nib.Nifti1Header):
        image.header.set_xyzt_units(*like.header.get_xyzt_units())
        image.set_qform(like.header.get_qform(coded=False) if like.header["qform_code"] else None, int(like.header["qform_code"]))
        image.set_sform(like.header.get_sform(coded=False) if like.header["sform_code"] else None, int(like.header["sform_code"]))
    return image
