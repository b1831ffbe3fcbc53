"""Label maps, and other maps, to files. Every format is a row of `WRITERS`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from attunet.classes import Classes
from attunet.errors import InputError
from attunet.io.dicom.organ_codes import Code
from attunet.io.itk.itk import write_itk
from attunet.io.mgh_analyze import MGH_SUFFIXES, write_mgh
from attunet.io.nifti import NIFTI_SUFFIXES
from attunet.io.nifti_header import image_like
from attunet.io.pictures.mask_colours import colour_of, is_colour
from attunet.io.readers import FORMATS, format_of
from attunet.io.reading import QUIET
from attunet.system.atomic_files import write_error, write_file
from attunet.volumes.volume import Volume

MAX_PICTURE_VALUE = 65535
PICTURES = (".png", ".tif", ".tiff")

Writer = Callable[[Path, np.ndarray, Volume], object]


def write_labels(
    path: Path | str,
    indices: np.ndarray,
    classes: Classes,
    like: Volume,
    *,
    codes: Mapping[str, Code] | None = None,
) -> None:
    """Writes class indices as a label map with the classes' own values, on the grid and with the codes of `like`.

    A picture's label map may be PNG (one slice) or TIFF (a page for each slice); where the values stand for colours, it
    has a palette. A DICOM series' may be `.dcm`: a DICOM Segmentation of the series' patient and study, a segment for
    each class. The file is written beside the target and renamed when it is whole.

    Args:
        path: the file; its ending names the format.
        indices: class indices `(X, Y, Z)`.
        like: the volume that was segmented.
        codes: a user's codes by class name, for DICOM SEG.

    Raises:
        InputError: where the ending does not fit or the file cannot be written.

    Example:
        write_labels("out.nii.gz", indices, segmenter.classes, volume)
    """
    assert indices.shape == like.shape, (indices.shape, like.shape)
    path = Path(path)
    if path.name.lower().endswith(".dcm"):
        from attunet.io.dicom.segmentation import segmentation_of

        content = segmentation_of(path, indices, classes, like, codes)
        _write(path, lambda temporary: temporary.write_bytes(content))
        return
    values = np.array(classes.values)
    bounds = (np.min_scalar_type(int(bound)) for bound in (values.min(), values.max()))
    write_map(path, values.astype(np.result_type(*bounds, np.uint8))[indices], like)  # holds 200 and -1 alike


def check_labels(path: Path, classes: Classes, like: Volume, codes: Mapping[str, Code] | None = None) -> None:
    """Raise InputError, before there is a label map, for a DICOM series that makes no DICOM SEG at this path."""
    if path.name.lower().endswith(".dcm"):
        from attunet.io.dicom.segmentation import segmentation_of

        indices = np.zeros(like.shape, np.uint8)
        indices[0, 0, 0] = 1
        segmentation_of(path, indices, classes, like, codes)


def suffixes_for(files: Sequence[Path]) -> tuple[str, ...]:
    """Endings with which the label map of an input in these files can be written, the default first."""
    name, format = files[0].name.lower(), format_of(files[0])
    if ".png" in format.suffixes:
        return ((".tif",) if name.endswith((".tif", ".tiff")) else (".png", ".tif")) + (*PICTURES, *NIFTI_SUFFIXES)
    scans = tuple(suffix for suffix in WRITERS if suffix not in PICTURES)
    if format is FORMATS[-1]:
        return (*scans, ".dcm")
    own = tuple(suffix for suffix in scans if suffix in format.suffixes)
    single = {".mhd": ".mha", ".nhdr": ".nrrd"}  # formats of two files have one of a single file
    exact = next((single.get(suffix, suffix) for suffix in format.suffixes if name.endswith(suffix)), "")
    first = own if exact in NIFTI_SUFFIXES or exact not in own else (exact,)
    return tuple(dict.fromkeys((*first, *scans)))


def write_map(path: Path | str, values: np.ndarray, like: Volume) -> None:
    """Writes any map `(X, Y, Z)` with its own dtype. Of the input's header, units and codes are copied, no text.

    Raises InputError as `write_labels` does.
    """
    path = Path(path)
    suffix = next((s for s in WRITERS if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise InputError(f"{path}: the name must end in {', '.join(WRITERS)}")
    _write(path, lambda temporary: WRITERS[suffix](temporary, values, like))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    def write_named(temporary: Path) -> None:
        try:
            write(temporary)
        except InputError as error:
            raise InputError(str(error).replace(str(temporary), str(path))) from None

    try:
        write_file(path, write_named)
    except OSError as error:
        raise write_error(path, error) from None


def _write_picture(path: Path, values: np.ndarray, like: Volume) -> None:
    """Grey of 8 bits, of 16 where values are larger, or a palette where they are codes of colours."""
    if like.unit != "pixel":
        ending = "must end in .nii.gz or another format of scans, since a picture has no grid in space"
        raise InputError(f"{path}: a scan's label map {ending}")
    from PIL import Image

    colours = np.unique(values) if is_colour(int(values.max())) else np.zeros(0, dtype=int)
    if colours.size:
        values = np.searchsorted(colours, values)
    if values.min() < 0 or values.max() > MAX_PICTURE_VALUE or len(colours) > 256:
        got = f"{values.min()} to {values.max()}"
        raise InputError(f"{path}: a picture holds label values from 0 to 65535, got {got}; write .nii.gz")
    stack = values.astype(np.uint8 if values.max() < 256 else np.uint16).transpose(2, 1, 0)  # (Z, rows, columns)
    if len(stack) > 1 and path.name.lower().endswith(".png"):
        raise InputError(f"{path}: a PNG holds one slice, got {len(stack)}; write .tif or .nii.gz")
    pages = [Image.fromarray(page) for page in stack]
    for page in pages if colours.size else ():
        page.putpalette([part for code in colours for part in colour_of(int(code))])
    if path.name.lower().endswith(".png"):
        pages[0].save(path)
    else:
        pages[0].save(path, save_all=True, append_images=pages[1:], compression="tiff_lzw")


def _write_nifti(path: Path, values: np.ndarray, like: Volume) -> None:
    with QUIET:
        nib.save(image_like(values, like), path)


# By ending; for scans, the first is used where nothing else decides.
WRITERS: dict[str, Writer] = {
    **dict.fromkeys(NIFTI_SUFFIXES, _write_nifti),
    **dict.fromkeys(MGH_SUFFIXES, write_mgh),
    **dict.fromkeys((".nrrd", ".mha"), write_itk),
    **dict.fromkeys(PICTURES, _write_picture),
}
