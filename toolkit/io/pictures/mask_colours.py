"""Label values of masks in pictures: greys, palettes, colours, alpha.

A grey is its own label value. A colour that is no grey is the code `COLOUR + 0xRRGGBB`, the same in every file whatever
its palette's order.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attunet.decisions import Choices, Decision, choice
from attunet.errors import InputError
from attunet.io.pictures.opening import GREY_MODES, LOSSY, WITHOUT_ALPHA
from attunet.io.pictures.samples import INVERTED_MODES, inverted, is_white_zero

if TYPE_CHECKING:
    from PIL.Image import Image

COLOUR = 2**24  # added to 0xRRGGBB, so that no colour is taken for a grey
MAX_COLOURS = 256  # in one mask; more are a photograph or smoothed edges
MAX_JPEG_CHROMA = 64  # between the bands of a grey that JPEG stored as a colour
OPAQUE_FROM = 128  # alpha of a pixel that counts as painted
ROWS_OF = 2**20  # pixels, which are sorted at once

Samples = tuple[np.ndarray, dict[int, int], list[Decision]]


def codes_of(rgb: np.ndarray) -> np.ndarray:
    """Label values int32 `(...)` of colours `(..., 3)` of 8 bits."""
    red, green, blue = (rgb[..., band] for band in range(3))
    codes = red.astype(np.int32)
    for band in (green, blue):  # in place: a mask may have hundreds of millions of pixels
        codes <<= 8
        codes |= band
    codes += COLOUR
    np.copyto(codes, red, where=(red == green) & (green == blue))
    return codes


def is_colour(value: int) -> bool:
    """True for the code of a colour that is no grey."""
    return COLOUR <= value < 2 * COLOUR


def colour_of(value: int) -> tuple[int, int, int]:
    """Red, green and blue of a label value: of a code, or of a grey from 0 to 255."""
    if not is_colour(value):
        return value, value, value
    return (value >> 16) & 255, (value >> 8) & 255, value & 255


def colour_name(value: int) -> str:
    """`#rrggbb` of a label value that stands for a colour."""
    return "#" + "".join(f"{part:02x}" for part in colour_of(value))


def colour_codes(image: "Image") -> np.ndarray:
    """Label values of the entries of a palette, by index."""
    return codes_of(np.array(image.getpalette("RGB"), dtype=np.int32).reshape(-1, 3))


def mask_samples(path: Path, image: "Image", file: "Image", choices: Choices) -> Samples:
    """Label values `(rows, columns)`, palette as `{code: index}` (empty without one) and decisions of an upright page.

    `file` is the opened file, with its format and tags. Raises InputError for a mode that holds no mask, or more
    colours than a mask has.
    """
    mode = image.mode
    if mode in WITHOUT_ALPHA:
        return _with_alpha(path, image if mode == "RGBA" else image.convert("RGBA"), choices)
    if mode == "P":
        return _palette(image, file)
    if mode == "RGB":
        return _colours(path, np.asarray(image), file), {}, []
    if mode in GREY_MODES:
        return _greys(path, image, file, choices)
    raise InputError(f"{path}: a mask must be grey, palette or RGB, got Pillow's mode {mode}")


def _greys(path: Path, image: "Image", file: "Image", choices: Choices) -> Samples:
    values = np.asarray(image.convert("L") if image.mode == "1" else image)
    if not is_white_zero(file):
        return values, {}, []
    is_wanted = choice("raw-tiff", choices) == "inverted"
    if is_wanted != (image.mode in INVERTED_MODES):
        values = inverted(path, values)
    text = "samples of TIFF masks are read as stored, though their tag says that white is zero"
    return values, {}, [] if is_wanted else [Decision("raw-tiff", text)]


def _palette(image: "Image", file: "Image") -> Samples:
    indices, codes = np.asarray(image), colour_codes(image)
    codes[_transparent(image, len(codes))] = 0
    used = _distinct(indices)
    same_colour = len({int(codes[i]) for i in used if i < len(codes)}) < len(used)
    if same_colour or (file.format == "TIFF" and codes.max() < COLOUR):
        return indices, {}, []  # the colours do not tell the classes apart, or they are TIFF's greys
    if codes.max() < COLOUR:
        # Programs that shrink files turn greys into a palette, in any order
        return codes.astype(np.uint8)[indices], {}, []
    return codes[indices], {int(codes[i]): int(i) for i in used}, []


def _transparent(image: "Image", entries: int) -> np.ndarray:
    """For each entry of a palette, True where the file says that it is transparent."""
    transparency = image.info.get("transparency", b"")
    if isinstance(transparency, int):
        return np.arange(entries) == transparency
    alpha = np.frombuffer(transparency[:entries] if isinstance(transparency, bytes) else b"", np.uint8)
    return np.concatenate([alpha < OPAQUE_FROM, np.zeros(entries - len(alpha), dtype=bool)])


def _colours(path: Path, rgb: np.ndarray, file: "Image") -> np.ndarray:
    if file.format in LOSSY:
        if np.ptp(rgb, axis=2).max() > MAX_JPEG_CHROMA:
            raise InputError(f"{path}: a mask as JPEG must be grey, since JPEG changes colours; save it as PNG")
        return rgb[:, :, 0]
    values = _narrow(codes_of(rgb))
    if values.max() >= COLOUR:
        _check_colours(path, _distinct(values))
    return values


def _check_colours(path: Path, colours: np.ndarray) -> None:
    if (number := len(colours)) > MAX_COLOURS:
        got = f"got {number:,}; are its edges smoothed?"
        raise InputError(f"{path}: a mask in colours has at most {MAX_COLOURS} of them, {got}")


def _with_alpha(path: Path, image: "Image", choices: Choices) -> Samples:
    """Alpha is the mask where black or white alone is painted; else what is transparent is background, and the others
    have the value of their colour, which is another class in another file.
    """
    rgba = np.asarray(image)
    alpha, colours = rgba[:, :, 3], codes_of(rgba[:, :, :3])
    if alpha.min() == alpha.max() or choice("alpha-mask", choices) == "drop":
        return _narrow(colours), {}, []
    inside = alpha > alpha.max() / 2  # paint may be half transparent
    colours[~inside] = 0
    painted = _distinct(colours, inside)
    if len(painted) <= 1 and set(painted.tolist()) <= {0, 255}:
        return alpha, {}, [Decision("alpha-mask", "alpha is the mask, since what is painted has one colour")]
    _check_colours(path, painted)
    text = "transparent pixels are background, the others have their colour's class"
    return _narrow(colours), {}, [Decision("alpha-mask", text)]


def _distinct(values: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """The distinct values, of those that are marked, in order; of some rows at a time, since sorting copies them."""
    step = max(1, ROWS_OF // values.shape[1])
    rows = [slice(at, at + step) for at in range(0, len(values), step)]
    return np.unique(
        np.concatenate([np.unique(values[part] if where is None else values[part][where[part]]) for part in rows])
    )


def _narrow(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint8) if values.max() < 256 else values


def common_indices(palettes: Mapping[str, Mapping[int, int]]) -> dict[int, int] | None:
    """`{code: index}` where all files' palettes agree, None where a colour or an index means two things."""
    merged: dict[int, int] = {}
    for palette in palettes.values():
        for code, index in palette.items():
            if merged.setdefault(code, index) != index:
                return None
    return merged if len(set(merged.values())) == len(merged) else None
