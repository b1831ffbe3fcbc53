"""Pictures and stacks of pages through Pillow (the extra `images`); they have no physical spacing."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from attunet.decisions import Decision, choice
from attunet.errors import InputError, TooLarge, one_line
from attunet.io.pictures.mask_colours import colour_codes, mask_samples
from attunet.io.pictures.missing_pixels import load_whole
from attunet.io.pictures.opening import (
    GREY_MODES,
    IMAGE_FORMATS,
    LOSSY,
    WITHOUT_ALPHA,
    num_values,
    opened,
    pillow,
    tiff_tag,
)
from attunet.io.pictures.samples import INVERTED_MODES, check_samples, check_unsigned, inverted, is_white_zero
from attunet.io.reading import FILE_ERRORS, MAX_DEFLATE_RATIO, MAX_VOXELS, ReadOptions, native, quiet_stderr
from attunet.io.refusal import AGAIN, PICTURE, refused_as
from attunet.volumes.volume import Volume

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (
    *(".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".jp2", ".j2k", ".ppm", ".pgm"),
    *(".ppm.gz", ".pgm.gz"),
)
TIFF_COMPRESSIONS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits")
SMALL_VALUES = 2**24  # of WebP and JPEG 2000, in which a picture of one colour takes as many bytes as a small one
MAX_JPEG_RIPPLE = 8  # in the 3 × 3 neighbourhood of a pixel inside a region
MAX_JPEG_GREYS = 0.05  # share of a JPEG mask's pixels between clearly black and clearly white
EXIF_ORIENTATION = 0x0112
TURNED_BACK = {
    **{2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM"},
    **{5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"},
}
DESCRIPTION = 270  # a tag of TIFF
IMAGEJ = re.compile(r"ImageJ=[^\n]*\nimages=(\d{1,9})")  # large stacks have one page for all images


def read_image_file(path: Path, options: ReadOptions) -> Volume:
    """Reads a picture, or a TIFF whose pages are slices.

    White of one bit is 255, and a palette of greys gives greys. An image's alpha channel is dropped. Masks keep what
    was drawn: colours become codes (see `mask_colours`), alpha and TIFF's photometric tag are interpreted, and a black
    and white JPEG, which is never exact, is made so.

    Returns:
        `(C, X, Y, Z)` with X along a row's columns, Y down the rows and Z the pages; C is 1 for grey and 3 for colour.
        A mask with a palette has its `{code: index}` as `header`.

    Raises InputError for damaged files, more values than `MAX_VOXELS` or than the file can hold, pages of different
    size.
    """
    errors = (*FILE_ERRORS, pillow(path).DecompressionBombError)
    with refused_as(path, PICTURE, errors, _in_words), quiet_stderr(), opened(path, whole=True) as (image, num_pages):
        read = [_page(path, image, index, num_pages, options) for index in range(num_pages)]
    if len(shapes := {page.shape for page, _, _ in read}) != 1:
        raise InputError(f"{path}: every page must have the same size and channels, got {sorted(shapes)}")
    pages = [page for page, _, _ in read]
    stack = np.stack(pages, axis=-1) if len(pages) > 1 else pages[0][..., None]  # (rows, columns, C, Z)
    palette = {code: index for _, palette, _ in read for code, index in palette.items()}
    decisions = dict.fromkeys(decision for _, _, made in read for decision in made)
    data = np.ascontiguousarray(stack.transpose(2, 1, 0, 3))
    return Volume(data, np.eye(4), unit="pixel", header=palette or None, decisions=tuple(decisions))


def _in_words(error: Exception) -> str:
    """Pillow's error as a clause, without bytes of the file; its own words may be a decoder's number."""
    if type(error).__name__ == "UnidentifiedImageError":
        kinds = ", ".join(IMAGE_FORMATS)
        return f"it is none of {kinds}, or its samples are not of 8 to 32 bits: save it with 32; or is it damaged?"
    if type(error).__name__ == "DecompressionBombError":
        return one_line(error)
    words = re.sub(r"""\bb(['"]).*\1""", "...", one_line(error))
    return f"it is damaged or cut short ({words}): {AGAIN}"


def _check_size(path: Path, image: "Image", num_pages: int) -> None:
    values, present = num_values(image) * num_pages, path.stat().st_size
    compression = image.info.get("compression", "raw") if image.format == "TIFF" else ""
    if values > MAX_VOXELS:
        raise TooLarge(f"{path}: at most {MAX_VOXELS:,} values are supported, the header says {values:,}")
    if image.format in ("WEBP", "JPEG2000"):
        limit = SMALL_VALUES + MAX_DEFLATE_RATIO * present
    else:
        limit = 8 * present * (1 if compression == "raw" else MAX_DEFLATE_RATIO)  # values may be bits
    if values > limit:
        said = f"the header says {values:,} values, a {image.format} of {present:,} bytes may hold {limit:,}"
        raise InputError(f"{path}: is cut short: {said}; {AGAIN}")
    if image.format in ("GIF", "WEBP", "PNG") and getattr(image, "is_animated", False):
        raise InputError(f"{path}: a {image.format} must have one frame: save its frames as files of their own")
    stated = IMAGEJ.match(str(tiff_tag(image, DESCRIPTION)))
    if stated and int(stated[1]) > num_pages:
        raise InputError(
            f"{path}: holds {stated[1]} images of ImageJ and {num_pages} page(s): save a page for each, or .nii.gz"
        )
    if compression and compression not in TIFF_COMPRESSIONS:
        raise InputError(f"{path}: TIFF compression must be one of {', '.join(TIFF_COMPRESSIONS)}, got {compression}")


def _page(
    path: Path, image: "Image", index: int, num_pages: int, options: ReadOptions
) -> tuple[np.ndarray, dict[int, int], list[Decision]]:
    """One page as `(rows, columns, C)`, the palette of a mask as `{code: index}`, and the decisions."""
    if index:
        before = num_values(image)
        image.seek(index)
        if num_values(image) != before:
            raise InputError(f"{path}: every page must have the same size and channels; page {index + 1} has not")
    _check_size(path, image, num_pages)
    check_samples(path, image, labels=options.labels)
    upright, decisions = _upright(path, image, options)
    palette: dict[int, int] = {}
    if options.labels:
        array, palette, more = mask_samples(path, upright, image, options.choices)
        decisions += more
        if image.format == "JPEG2000":
            text = "a mask as JPEG 2000 is taken as it is; one that was cut to a size has other values"
            decisions.append(Decision("mask-jpeg-2000", text))
        if image.format in LOSSY:
            array = _black_and_white(array)
            if not is_jpeg(path):
                require_black_and_white(path, array)
    else:
        array = _samples(path, upright)
        if is_white_zero(image) and image.mode not in INVERTED_MODES:
            array = inverted(path, array)
    check_unsigned(path, image, array)
    return native(array).reshape(*array.shape[:2], -1), palette, decisions


def _upright(path: Path, image: "Image", options: ReadOptions) -> tuple["Image", list[Decision]]:
    """The image turned as its EXIF orientation says."""
    from PIL import Image, ImageOps

    orientation = image.getexif().get(EXIF_ORIENTATION, 1)  # loading a TIFF forgets it, and turns it
    load_whole(path, image)
    if orientation not in range(2, 9):
        return image, []
    if choice("exif-orientation", options.choices) == "ignore":
        is_turned = image.format == "TIFF"
        return image.transpose(Image.Transpose[TURNED_BACK[orientation]]) if is_turned else image, []
    turned = Decision("exif-orientation", "pictures are turned as their EXIF orientation says")
    return ImageOps.exif_transpose(image), [turned]


def _samples(path: Path, image: "Image") -> np.ndarray:
    """Intensities of an image `(rows, columns)` or `(rows, columns, 3)`."""
    mode = image.mode
    if mode == "1":
        image = image.convert("L")
    elif mode == "P":
        image = image.convert("L" if colour_codes(image).max() < 256 else "RGB")
    elif mode in WITHOUT_ALPHA:
        image = image.convert(WITHOUT_ALPHA[mode])
    elif mode not in (*GREY_MODES, "RGB"):
        raise InputError(f"{path}: must be grey, palette or RGB, got Pillow's mode {mode}: convert it to RGB")
    return np.asarray(image)


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height from a picture's header; (0, 0) for one that cannot be read, which the reader will refuse."""
    bomb = pillow(path).DecompressionBombError
    try:
        with opened(path) as (image, _):
            return int(image.size[0]), int(image.size[1])
    except (*FILE_ERRORS, InputError, bomb):
        return 0, 0


def is_jpeg(path: Path) -> bool:
    """True for a name of a JPEG."""
    return path.name.lower().endswith((".jpg", ".jpeg"))


def require_black_and_white(path: Path, mask: np.ndarray) -> None:
    """Raises InputError for a JPEG's mask that has other greys, where nothing shows what they are."""
    if not np.isin(mask, (0, 255)).all():
        rule = "must be black and white here, since JPEG changes values; save it as PNG"
        raise InputError(f"{path}: a mask as JPEG {rule}")


def _black_and_white(page: np.ndarray) -> np.ndarray:
    """A JPEG's page in 0 and 255; unchanged where it has regions of greys, whose levels only all masks show."""
    spread = ndimage.maximum_filter(page, size=3).astype(int) - ndimage.minimum_filter(page, size=3)
    region = (spread <= MAX_JPEG_RIPPLE) & (page > MAX_JPEG_RIPPLE) & (page < 255 - MAX_JPEG_RIPPLE)
    grey = (page >= 64) & (page < 192)
    if region.any() or grey.mean() > MAX_JPEG_GREYS or 16 < page.max() < 192:
        return page
    return np.where(page < 128, 0, 255).astype(np.uint8)
