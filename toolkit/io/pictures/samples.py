"""Samples that Pillow changes while it reads a picture: it drops bits and signs, stretches few bits to eight, and where
white is zero inverts those of few bits alone.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attunet.errors import InputError
from attunet.io.pictures.jpeg_2000 import is_irreversible, is_signed, sample_bits
from attunet.io.pictures.opening import tiff_tag

if TYPE_CHECKING:
    from PIL.Image import Image

SAMPLE_FORMAT, UNSIGNED, SIGNED = 339, 1, 2  # a tag of TIFF, and its values
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
INVERTED_MODES = ("1", "L")  # of pages that Pillow inverts
WHOLE_BYTES = (8, 16)
WHOLE_MAXIMA = (255, 65535)  # of PPM and PGM


def check_samples(path: Path, image: "Image", *, labels: bool) -> None:
    """Refuse a page, not yet loaded, whose samples Pillow would not give as they are stored.

    Raises InputError for 16 bits in each of several channels, signed samples of 8 bits or of JPEG 2000; with `labels`
    also for samples that are stretched to 8 or 16 bits, and lossy compression: in a mask a sample is a label value.
    """
    if reason := _changed(path, image) or (_changed_labels(path, image) if labels else ""):
        raise InputError(f"{path}: {reason}")


def check_unsigned(path: Path, image: "Image", samples: np.ndarray) -> None:
    """Refuse numbers of 32 bits without a sign that Pillow gives a sign."""
    is_unsigned = image.format == "TIFF" and tiff_tag(image, SAMPLE_FORMAT) in (None, UNSIGNED)
    if is_unsigned and samples.dtype.kind == "i" and samples.min() < 0:
        raise InputError(f"{path}: samples of 32 bits must be below 2^31: save it with fewer bits")


def is_white_zero(image: "Image") -> bool:
    """True for a page of a TIFF that stores white as zero."""
    return tiff_tag(image, PHOTOMETRIC) == WHITE_IS_ZERO


def inverted(path: Path, samples: np.ndarray) -> np.ndarray:
    """Exchange black and white. Raises InputError for fractions, whose white has no number."""
    if samples.dtype.kind == "f":
        raise InputError(f"{path}: a TIFF of fractions must not say that white is zero: save it with black as zero")
    return (np.iinfo(samples.dtype).max - samples).astype(samples.dtype)


def _changed(path: Path, image: "Image") -> str:
    bits, is_grey = _raw_mode(image).partition(";")[2], image.mode.startswith(("I", "F", "L", "1"))
    deep = bits.startswith("16") and not image.mode.startswith("I")
    if deep or (image.format == "JPEG2000" and not is_grey and max(sample_bits(path.read_bytes())) > 8):
        return "must have 8 bits in each of its channels, or one grey channel of 16, got 16 in several: save it so"
    if image.format == "JPEG2000" and is_signed(path.read_bytes()):
        return "signed samples of JPEG 2000 are not read: save them as TIFF with 16 bits"
    if tiff_tag(image, SAMPLE_FORMAT) == SIGNED and bits == "" and image.mode in ("L", "RGB", "RGBA"):
        return "signed samples of 8 bits are not read: save them with 16 bits"
    return ""


def _changed_labels(path: Path, image: "Image") -> str:
    advice = "save the mask as PNG"
    maximum = next((value for value in _stored(image)[1:] if image.format == "PPM"), 255)
    if maximum not in WHOLE_MAXIMA:
        return f"a mask as PPM or PGM must have the maximum 255 or 65535, got {maximum}: {advice}"
    if image.format in ("TIFF", "PNG") and (few := re.match(r"L;([24])", _raw_mode(image))):
        return f"a mask in greys must have 1, 8, 16 or 32 bits, got {few[1]}: save it as PNG with 8"
    if image.format == "BMP" and re.match(r"BGR;1[56]", _raw_mode(image)):
        return f"a mask as BMP must have 8 bits in each of its colours, got 5: {advice}"
    if image.format == "WEBP" and _is_lossy_webp(path.read_bytes()):
        return f"a mask as WebP must be compressed without loss: {advice}"
    if image.format == "JPEG2000":
        content = path.read_bytes()
        if is_irreversible(content) or not sample_bits(content) <= set(WHOLE_BYTES):
            return f"a mask as JPEG 2000 must have 8 or 16 bits and be compressed without loss: {advice}"
    return ""


def _raw_mode(image: "Image") -> str:
    """The form of the stored samples in Pillow's words, such as `RGB;16B`; empty for a format without one."""
    return str(next(iter(_stored(image)), ""))


def _stored(image: "Image") -> tuple[object, ...]:
    """Pillow's arguments for the decoder of the page, which begin with the form of its samples."""
    tiles = getattr(image, "tile", [])
    args = tiles[0][3] if tiles else ()
    return args if isinstance(args, tuple) else (args,)


def _is_lossy_webp(content: bytes) -> bool:
    """True for a chunk `VP8 ` of the file, as against `VP8L`."""
    at = 12
    while at + 8 <= len(content):
        if content[at : at + 4] == b"VP8 ":
            return True
        at += 8 + int.from_bytes(content[at + 4 : at + 8], "little")
        at += at % 2
    return False
