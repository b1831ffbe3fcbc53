"""NRRD, MetaImage (MHA, MHD) through SimpleITK (the extra `itk`): the header is judged before the voxels are read."""

import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from attunet.decisions import Decision
from attunet.errors import InputError, one_line
from attunet.io.itk_header import check_stored, read_itk_header
from attunet.io.nifti import channel_decision
from attunet.io.reading import (
    FILE_ERRORS,
    MAX_DEFLATE_RATIO,
    ReadOptions,
    check_real_numbers,
    check_voxels,
    checked_affine,
    native,
    quiet_stderr,
)
from attunet.io.refusal import AGAIN, needs, refused_as
from attunet.volumes.volume import Volume

if TYPE_CHECKING:
    from SimpleITK import Image

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's axes run to left, posterior and superior


def read_itk(path: Path, options: ReadOptions) -> Volume:
    """Reads NRRD or MetaImage; voxels of a header in a file of its own (`.mhd`, `.nhdr`) must lie beside it.

    Returns:
        `(C, X, Y, Z)` in the file's own dtype; float64 becomes float32. The affine is in RAS+.

    Raises:
        InputError: for a damaged file, voxels elsewhere than in the file or beside it, more voxels than are supported
            or than the files can hold, more than three axes, and more than one channel of a mask.
    """
    sitk = _simpleitk(path)
    with refused_as(path, "NRRD or MetaImage", FILE_ERRORS, _reason):
        stored = read_itk_header(path)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        with quiet_stderr():
            reader.ReadImageInformation()
        size, channels = reader.GetSize(), reader.GetNumberOfComponents()
        if not 2 <= len(size) <= 4 or min(size) < 1:
            raise InputError(f"{path}: must be a 3D image, got the shape {tuple(size)}")
        item_bytes = np.dtype(sitk.extra._get_numpy_dtype(sitk.Image(1, 1, reader.GetPixelID()))).itemsize
        voxels = int(np.prod(size, dtype=object)) * channels
        check_voxels(stored.holder, voxels, item_bytes, ratio=MAX_DEFLATE_RATIO)
        check_stored(stored, voxels * item_bytes)
        with quiet_stderr():
            image = reader.Execute()
    return _volume(path, sitk.GetArrayFromImage(image), image, options, stored.states_orientation)


def _volume(path: Path, array: np.ndarray, image: "Image", options: ReadOptions, is_oriented: bool) -> Volume:
    """The volume of an ITK image whose array is (Z, Y, X), (T, Z, Y, X) or has its channels last."""
    dimension = image.GetDimension()
    data = np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array[None]
    if dimension == 2:
        data = data[:, None]
    if dimension == 4:
        if data.shape[0] > 1:
            raise InputError(f"{path}: must have three axes and channels, got four axes and channels")
        data = data[0]
    check_real_numbers(path, data.dtype)
    if options.labels and len(data) > 1:
        what = "save it as one label map (3D Slicer: a label volume)"
        raise InputError(f"{path}: a mask must have one channel, got {len(data)}: {what}")
    reading = "the header states no orientation: its axes are taken to run to left, posterior and superior (LPS)"
    return Volume(
        np.ascontiguousarray(native(data).transpose(0, 3, 2, 1)),
        checked_affine(path, _affine(image)),
        header=Path(path).suffix.lower(),
        decisions=(*channel_decision(len(data)), *(() if is_oriented else (Decision("itk-orientation", reading),))),
        is_oriented=is_oriented,
    )


def _affine(image: "Image") -> np.ndarray:
    """Voxel to millimetres in RAS+."""
    n = min(3, image.GetDimension())
    lps = np.eye(4)
    directions = np.array(image.GetDirection()).reshape(image.GetDimension(), -1)[:n, :n]
    lps[:n, :n] = directions * np.array(image.GetSpacing()[:n])
    lps[:n, 3] = image.GetOrigin()[:n]
    return TO_RAS @ lps


def _simpleitk(path: Path) -> ModuleType:
    with needs(path, "NRRD and MetaImage need SimpleITK", "itk"):
        import SimpleITK
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # ITK prints warnings on stderr, past the log
    return SimpleITK


def _reason(error: Exception) -> str:
    """The last part of ITK's message, which begins with source files, addresses and names of functions."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = one_line(ValueError(lines[-1].rpartition("): ")[2])) if lines else one_line(error)
    if "Unable to determine ImageIO" in last:
        return "its header is of neither; is it damaged?"
    if last.startswith("Reason:"):  # the last error of the system, which is of other files
        return f"it is damaged or cut short: {AGAIN}"
    if "hit end of header" in last:
        return f"its header breaks off: {AGAIN}"
    return re.sub(r"^\[nrrd\] \w+: ", "", last)


def write_itk(path: Path, values: np.ndarray, like: Volume) -> None:
    """Writes integers `(X, Y, Z)` on `like`'s grid, compressed."""
    sitk = _simpleitk(path)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0)))
    lps = TO_RAS @ like.affine
    image.SetSpacing([float(v) for v in like.spacing])
    image.SetDirection((lps[:3, :3] / np.array(like.spacing)).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path), useCompression=True)
