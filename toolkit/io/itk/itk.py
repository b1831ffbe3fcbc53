"""Volumes of NRRD and MetaImage (MHA, MHD)."""

from pathlib import Path

import numpy as np

from attunet.decisions import Decision
from attunet.errors import InputError
from attunet.io.itk.metaimage import metaimage_bytes, read_metaimage
from attunet.io.itk.nrrd import nrrd_bytes, read_nrrd
from attunet.io.itk.stored import StoredImage
from attunet.io.nifti import channel_decision
from attunet.io.reading import FILE_ERRORS, ReadOptions, check_real_numbers, checked_affine, native
from attunet.io.refusal import refused_as
from attunet.volumes.volume import Volume

NRRD_SUFFIXES = (".nrrd", ".nhdr")
ITK_SUFFIXES = (*NRRD_SUFFIXES, ".mha", ".mhd")
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # the formats' axes run to left, posterior and superior
AXES = 3


def read_itk_header(path: Path) -> StoredImage:
    """The image that a header describes; raises InputError for a damaged one, and for voxels elsewhere."""
    return (read_nrrd if path.name.lower().endswith(NRRD_SUFFIXES) else read_metaimage)(path)


def read_itk(path: Path, options: ReadOptions) -> Volume:
    """Reads NRRD or MetaImage; voxels of a header in a file of its own (`.mhd`, `.nhdr`) must lie beside it.

    The volume is `(C, X, Y, Z)` in the file's own dtype; float64 becomes float32. Raises InputError for a damaged file,
    voxels elsewhere than in the file or beside it, more voxels than are supported or than the files can hold, more than
    three axes, and more than one channel of a mask.
    """
    with refused_as(path, "NRRD or MetaImage", FILE_ERRORS):
        stored = read_itk_header(path)
        data = _channels_first(path, stored, stored.read())
    check_real_numbers(path, data.dtype)
    if options.labels and len(data) > 1:
        what = "save it as one label map (3D Slicer: a label volume)"
        raise InputError(f"{path}: a mask must have one channel, got {len(data)}: {what}")
    reading = "the header states no orientation: its axes are taken to run to left, posterior and superior (LPS)"
    is_oriented = stored.is_oriented
    return Volume(
        np.ascontiguousarray(native(data)),
        checked_affine(path, _affine(stored)),
        header=path.suffix.lower(),
        decisions=(*channel_decision(len(data)), *(() if is_oriented else (Decision("itk-orientation", reading),))),
        is_oriented=is_oriented,
    )


def _channels_first(path: Path, stored: StoredImage, array: np.ndarray) -> np.ndarray:
    """`(C, X, Y, Z)`; a fourth axis of places holds channels, and a picture is one slice."""
    if stored.channel_axis is None:
        data = np.moveaxis(array, AXES, 0) if array.ndim > AXES else array[None]
    else:
        data = np.moveaxis(array, stored.channel_axis, 0)
        if data.ndim > AXES + 1:
            if len(data) > 1:
                raise InputError(f"{path}: must have three axes and channels, got four axes and channels")
            data = np.moveaxis(data[0], AXES, 0)
    return data if data.ndim > AXES else data[..., None]


def _affine(stored: StoredImage) -> np.ndarray:
    """Voxel to millimetres in RAS+."""
    lps = np.eye(4)
    directions = stored.directions[:AXES]
    lps[:3, : len(directions)] = directions.T
    if len(directions) < AXES and np.abs(directions[:, 2]).max() > 0:  # a slice that lies tilted in space
        normal = np.cross(*directions)
        lps[:3, 2] = normal / np.linalg.norm(normal)
    lps[:3, 3] = stored.origin
    return TO_RAS @ lps


def write_itk(path: Path, values: np.ndarray, like: Volume) -> None:
    """Writes integers `(X, Y, Z)` on `like`'s grid, compressed."""
    to_bytes = nrrd_bytes if path.name.lower().endswith(NRRD_SUFFIXES) else metaimage_bytes
    path.write_bytes(to_bytes(values, TO_RAS @ like.affine))
