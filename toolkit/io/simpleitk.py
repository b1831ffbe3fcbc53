"""NRRD, MetaImage (MHA, MHD) through SimpleITK (the extra `itk`): the header is judged before the voxels are read."""

from pathlib import Path
from typing import Any

import numpy as np

from attunet.decisions import Decision
from attunet.errors import InputError, one_line
from attunet.io.nifti import channel_decision
from attunet.io.reading import FILE_ERRORS, MAX_DEFLATE_RATIO, ReadOptions, check_voxels, checked_affine, quiet_stderr
from attunet.volumes.volume import Volume

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
MAX_HEADER_BYTES = 2**20
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's axes run to left, posterior and superior
ORIENTATION_KEYS = (b"space", b"transformmatrix", b"rotation", b"orientation")
DATA_FILE_KEYS = ("elementdatafile", "data file", "datafile")


def read_itk(path: Path, options: ReadOptions) -> Volume:
    """Reads NRRD or MetaImage.

    Args:
        path: the file; of a header with its voxels in another file (`.mhd`, `.nhdr`), that file must lie beside it.
        options: a mask has one channel.

    Returns:
        `(C, X, Y, Z)` in the file's own dtype; float64 becomes float32. The affine is in RAS+.

    Raises:
        InputError: for a damaged file, voxels elsewhere than in the file or beside it, more voxels than are supported or than the
            files can hold, and more than three axes.
    """
    sitk = _simpleitk(path)
    try:
        holder = _voxel_file(path)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        with quiet_stderr():
            reader.ReadImageInformation()
        size, channels = reader.GetSize(), reader.GetNumberOfComponents()
        if not 2 <= len(size) <= 4 or min(size) < 1:
            raise InputError(f"{path}: must be a 3D image, got the shape {tuple(size)}")
        item_bytes = np.dtype(sitk.extra._get_numpy_dtype(sitk.Image(1, 1, reader.GetPixelID()))).itemsize
        check_voxels(holder, int(np.prod(size, dtype=object)) * channels, item_bytes, ratio=MAX_DEFLATE_RATIO)
        with quiet_stderr():
            image = reader.Execute()
    except InputError:
        raise
    except FILE_ERRORS as error:
        raise InputError(f"{path}: cannot be read as NRRD or MetaImage: {_reason(error)}") from None
    return _volume(path, sitk.GetArrayFromImage(image), image, options)


def _volume(path: Path, array: np.ndarray, image: Any, options: ReadOptions) -> Volume:
    """The volume of an ITK image whose array is (Z, Y, X), (T, Z, Y, X) or has its channels last."""
    dimension = image.GetDimension()
    data = np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array[None]
    if dimension == 2:
        data = data[:, None]
    if dimension == 4:
        if data.shape[0] > 1:
            raise InputError(f"{path}: must have three axes and channels, got four axes and channels")
        data = data[0]
    if data.dtype.kind not in "iuf":
        raise InputError(f"{path}: voxels must be real numbers, got {data.dtype}")
    if options.labels and len(data) > 1:
        raise InputError(f"{path}: a mask must have one channel, got {len(data)}")
    if data.dtype == np.float64:
        with np.errstate(over="ignore"):
            data = data.astype(np.float32)
    is_oriented = _states_orientation(path)
    reading = Decision(
        "itk-orientation", "the header states no orientation: its axes are taken to run to left, posterior and superior (LPS)"
    )
    return Volume(
        np.ascontiguousarray(data.transpose(0, 3, 2, 1)),
        checked_affine(path, _affine(image)),
        header=Path(path).suffix.lower(),
        decisions=(*channel_decision(len(data)), *(() if is_oriented else (reading,))),
        is_oriented=is_oriented,
    )


def _states_orientation(path: Path) -> bool:
    """True where a header names its space (NRRD) or has a matrix of directions (MetaImage)."""
    with path.open("rb") as file:
        lines = file.read(MAX_HEADER_BYTES).split(b"\n")[:1000]
    return any(line.replace(b"=", b":", 1).partition(b":")[0].strip().lower() in ORIENTATION_KEYS for line in lines)


def _affine(image: Any) -> np.ndarray:
    """Voxel to millimetres in RAS+."""
    n = min(3, image.GetDimension())
    lps = np.eye(4)
    directions = np.array(image.GetDirection()).reshape(image.GetDimension(), -1)[:n, :n]
    lps[:n, :n] = directions * np.array(image.GetSpacing()[:n])
    lps[:n, 3] = image.GetOrigin()[:n]
    return TO_RAS @ lps


def _voxel_file(path: Path) -> Path:
    """The file that holds the voxels: itself, or a plain one beside it that the header names."""
    with path.open("rb") as file:
        start = file.read(MAX_HEADER_BYTES)
    header = start.split(b"\n\n")[0] if path.suffix.lower() in (".nrrd", ".nhdr") else start
    for line in header.split(b"\n")[:1000]:
        key, _, value = line.replace(b"=", b":", 1).partition(b":")
        if key.strip().lower().decode("latin-1") in DATA_FILE_KEYS:
            name = value.strip().decode("utf-8", "replace")
            if name.upper() == "LOCAL":
                return path
            beside = path.parent / name
            if Path(name).name != name or beside.is_symlink():
                raise InputError(f"{path}: its voxels must lie in one file beside it, got {name!r}")
            if not beside.is_file():
                raise InputError(f"{path}: its voxels lie in {name}, which is not there")
            return beside
    return path


def _simpleitk(path: Path) -> Any:
    try:
        import SimpleITK
    except ImportError:
        raise InputError(f"{path}: NRRD and MetaImage need SimpleITK, which is not installed: pip install 'attunet[itk]'") from None
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # ITK prints warnings on stderr, past the log
    return SimpleITK


def _reason(error: Exception) -> str:
    """The last part of ITK's message, which begins with source files and addresses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(ValueError(lines[-1].rpartition("): ")[2])) if lines else one_line(error)


def write_itk(path: Path, values: np.ndarray, like: Volume) -> None:
    """Writes a label map `(X, Y, Z)` on `like`'s grid, compressed.

    Args:
        path: ends in one of `ITK_SUFFIXES`.
        values: integers.
        like: the volume whose affine is taken.
    """
    sitk = _simpleitk(path)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0)))
    lps = TO_RAS @ like.affine
    image.SetSpacing([float(v) for v in like.spacing])
    image.SetDirection((lps[:3, :3] / np.array(like.spacing)).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path), useCompression=True)
