"""Label maps, and other maps, to files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from attunet.classes import Classes
from attunet.errors import InputError
from attunet.io.dicom import is_dicom
from attunet.io.images import IMAGE_SUFFIXES
from attunet.system.atomic_files import write_file
from attunet.volumes.volume import Volume

NIFTI = (".nii.gz", ".nii")
PICTURES = (".png", ".tif", ".tiff")


def write_labels(path: Path | str, indices: np.ndarray, classes: Classes, like: Volume) -> None:
    """Class indices `(X, Y, Z)` as a NIfTI label map with the classes' own values, on the grid and with the codes of `like`.

    A picture's may be PNG (one slice) or TIFF (a page per slice) too: grey of 8 bits, or of 16 where values are larger than 255.
    A DICOM series' may be .dcm too: a DICOM Segmentation of the series' patient and study, a segment per class.
    Written beside the target and renamed when whole. Raises InputError where the path's suffix does not fit or it cannot be written.
    """
    assert indices.shape == like.shape, (indices.shape, like.shape)
    path, values = Path(path), np.array(classes.values)
    if path.name.lower().endswith(PICTURES):
        _write_picture(path, values, indices, like)
        return
    if path.name.lower().endswith(".dcm"):
        from attunet.io.dicom_seg import segmentation_of

        segmentation = segmentation_of(path, indices, classes, like)
        _write(path, lambda temporary: segmentation.save_as(temporary))
        return
    values = values.astype(np.min_scalar_type(int(values.min())) if values.min() < 0 else np.uint8 if values.max() < 256 else np.int32)
    write_map(path, values[indices], like)


def suffixes_for(files: Sequence[Path]) -> tuple[str, ...]:
    """The formats in which the label map of an input in these files can be written; the first where a user names none."""
    name = files[0].name.lower()
    if files[0].is_file() and name.endswith(IMAGE_SUFFIXES):
        return ((".tif",) if name.endswith((".tif", ".tiff")) else (".png", ".tif")) + (*PICTURES, *NIFTI)
    return (*NIFTI, ".dcm") if files[0].is_dir() or is_dicom(files[0]) else NIFTI


def _write_picture(path: Path, values: np.ndarray, indices: np.ndarray, like: Volume) -> None:
    if like.unit != "pixel":
        raise InputError(f"{path}: a scan's label map must end in .nii or .nii.gz, since a picture has no grid in space")
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{path}: a picture holds label values from 0 to 65535, got {values.min()} to {values.max()}; write .nii.gz")
    pages = (values.astype(np.uint8 if values.max() < 256 else np.uint16)[indices]).transpose(2, 1, 0)  # (Z, rows, columns)
    if len(pages) > 1 and path.name.lower().endswith(".png"):
        raise InputError(f"{path}: a PNG holds one slice, got {len(pages)}; write .tif or .nii.gz")
    from PIL import Image

    first, *others = (Image.fromarray(page) for page in pages)
    pages_too: dict[str, Any] = {"save_all": True, "append_images": others, "compression": "tiff_lzw"}
    more = {} if path.name.lower().endswith(".png") else pages_too
    _write(path, lambda temporary: first.save(temporary, **more))


def write_map(path: Path | str, values: np.ndarray, like: Volume) -> None:
    """Any map `(X, Y, Z)` in the same way, with its own dtype. Of the input's header, units and codes are taken, no text."""
    path = Path(path)
    if not path.name.endswith(NIFTI):
        raise InputError(f"{path}: the name must end in .nii or .nii.gz")
    _write(path, lambda temporary: nib.save(_image(values, like), temporary))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    try:
        write_file(path, write)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None


def _image(values: np.ndarray, like: Volume) -> nib.Nifti1Image:
    image = nib.Nifti1Image(values, like.affine)
    if isinstance(like.header, nib.Nifti1Header):
        image.header.set_xyzt_units(*like.header.get_xyzt_units())
        image.set_qform(like.header.get_qform(coded=False) if like.header["qform_code"] else None, int(like.header["qform_code"]))
        image.set_sform(like.header.get_sform(coded=False) if like.header["sform_code"] else None, int(like.header["sform_code"]))
    return image
