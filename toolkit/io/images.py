"""PNG, TIFF, JPEG, BMP and GIF, through Pillow (the extra `images`): pictures and stacks without physical spacing."""

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from attunet.errors import InputError
from attunet.io.nifti import MAX_VOXELS, one_line
from attunet.volumes.volume import Volume

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".gif")
LARGEST_RATIO = 1040  # deflate cannot shrink further than 1032 to 1
GREY_MODES = ("1", "L", "I;16", "I;16B", "I;16L", "I", "F")
TIFF_COMPRESSIONS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits")
MOST_GREY_PIXELS = 0.05  # of a JPEG mask, between clearly black and clearly white

# What Pillow raises on files that are damaged or made to harm.
FILE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    NotImplementedError,
    RecursionError,
    EOFError,
    struct.error,
    zlib.error,
)


def read_picture(path: Path, *, labels: bool = False) -> Volume:
    """`(C, X, Y, Z)` with X along a row's columns, Y down the rows and Z the pages; C is 1 for grey and 3 for colour.

    An alpha channel is dropped, and pixels stay where the file has them, whatever EXIF says of the camera's position. White of one bit is
    255, and a palette of greys gives greys. With `labels`, a palette of colours gives its indices, colour must be grey in disguise, and a
    JPEG, which is never exact, must be black and white: 0 and 255.
    Raises InputError for damaged files, more than `MAX_VOXELS` values or more than the file can hold, and pages of different size.
    """
    from_file = _pillow(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large images and odd metadata; sizes are bounded here
            with from_file.open(path, formats=["PNG", "TIFF", "JPEG", "BMP", "GIF"]) as image:
                _check_size(path, image)
                pages = [_page(path, image, index, labels) for index in range(_num_pages(image))]
                if labels and image.format in ("JPEG", "MPO"):
                    pages = [_black_and_white(path, page) for page in pages]
    except InputError:
        raise
    except (*FILE_ERRORS, from_file.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read as PNG, TIFF, JPEG, BMP or GIF: {one_line(error)}") from None
    if len({page.shape for page in pages}) != 1:
        raise InputError(f"{path}: every page must have the same size and channels, got {sorted({page.shape for page in pages})}")
    stack = np.stack(pages, axis=-1)  # (rows, columns, C, Z)
    return Volume(np.ascontiguousarray(stack.transpose(2, 1, 0, 3)), np.eye(4), unit="pixel")


def _pillow(path: Path) -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise InputError(
            f"{path}: PNG, TIFF, JPEG, BMP and GIF need Pillow, which is not installed: pip install 'attunet[images]'"
        ) from None
    return Image


def _num_pages(image: Any) -> int:
    """The pages of a TIFF; of any other format there is one (an animated GIF is refused)."""
    return int(getattr(image, "n_frames", 1)) if image.format == "TIFF" else 1


def _check_size(path: Path, image: Any) -> None:
    width, height = image.size
    values, present = width * height * len(image.getbands()) * _num_pages(image), path.stat().st_size
    if values > MAX_VOXELS:
        raise InputError(f"{path}: at most {MAX_VOXELS:,} values are supported, the header says {values:,}")
    if values // 8 > present * LARGEST_RATIO:
        raise InputError(f"{path}: is cut short: the header says {values:,} values, the file has {present:,} bytes")
    if image.format == "GIF" and image.is_animated:
        raise InputError(f"{path}: a GIF must have one frame")
    if image.format == "TIFF" and image.info.get("compression", "raw") not in TIFF_COMPRESSIONS:
        raise InputError(f"{path}: TIFF compression must be one of {', '.join(TIFF_COMPRESSIONS)}, got {image.info['compression']}")


def _page(path: Path, image: Any, index: int, labels: bool) -> np.ndarray:
    """One page as `(rows, columns, C)`."""
    if index:
        image.seek(index)
        _check_size(path, image)
    mode = image.mode
    if mode == "1" or (mode == "P" and _is_grey(image)):
        image = image.convert("L")  # programs that make files smaller turn black and white into these, in any order
    elif mode == "P" and not labels:
        image = image.convert("RGB")
    elif mode in ("LA", "PA", "RGBA"):
        image = image.convert({"LA": "L", "PA": "RGB", "RGBA": "RGB"}[mode])
    elif mode not in (*GREY_MODES, "P", "RGB"):
        raise InputError(f"{path}: must be grey, palette or RGB, got Pillow's mode {mode}")
    array = np.asarray(image)
    array = np.asarray(array, dtype=array.dtype.newbyteorder("="))
    array = array.reshape(*array.shape[:2], -1)
    if labels and array.shape[2] == 3:
        if image.format not in ("JPEG", "MPO") and (array != array[:, :, :1]).any():
            raise InputError(f"{path}: a label image must be grey or have a palette, got colours")
        array = array[:, :, :1]
    return array


def _is_grey(image: Any) -> bool:
    """Whether every colour of a palette is a grey."""
    palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _black_and_white(path: Path, page: np.ndarray) -> np.ndarray:
    grey = float(((page >= 64) & (page < 192)).mean())
    if grey > MOST_GREY_PIXELS or (page.max() < 192 and page.max() > 16):
        raise InputError(f"{path}: a label image as JPEG must be black and white, since JPEG changes values; save it as PNG")
    return np.where(page < 128, 0, 255).astype(np.uint8)
