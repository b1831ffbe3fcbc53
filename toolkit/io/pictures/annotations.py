"""Masks from annotations of COCO (JSON), CVAT (XML) and Label Studio (JSON), drawn onto a picture's grid."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from attunet.errors import InputError
from attunet.fields import parse_json
from attunet.io.pictures.coco import read_coco
from attunet.io.pictures.cvat import read_cvat
from attunet.io.pictures.label_studio import read_label_studio
from attunet.io.pictures.regions import Annotations, NotAnnotations, Region
from attunet.io.reading import FILE_ERRORS

ANNOTATION_SUFFIXES = (".json", ".xml")
MAX_BYTES = 2**28
FREE_PARTS, BYTES_PER_PART = 2**20, 16  # lists and objects, elements and attributes, of 60 to 230 bytes each in memory
MAX_COVER, MAX_COVER_LARGE, LARGE = 1000, 16, 2**21  # how often regions may cover a picture (of so many pixels); time
BACKGROUND = "background"  # a class of this name covers what lies below
CROSSING = 256  # pixels that count for a row which an edge of a polygon crosses: Pillow sorts the crossings of each row
EMPTY = 32  # pixels beside a polygon that count as one
UNSET = 4  # pixels of a mask that it does not set, and that count as one


@dataclass
class _Work:
    """The pixels of a picture that its regions may still look at, which the time depends on."""

    picture: str
    size: int

    def __post_init__(self) -> None:
        self._limit = self._left = max(MAX_COVER * min(self.size, LARGE), MAX_COVER_LARGE * self.size)

    def add(self, looked_at: int) -> None:
        self._left -= looked_at
        if self._left < 0:
            times = f"{self._limit // self.size:,} times"
            raise InputError(f"the regions of {self.picture} must not cover it more than {times}")


def read_annotations(path: Path, picture: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Label values `(X, Y, 1)` of one picture, by the annotations in `path`. Raises InputError for a damaged file, one
    that does not name the picture, or regions of another size.
    """
    annotations = load_annotations(path)
    with _named_errors(path):
        name = annotations.name_of(picture)
    if name is None:
        raise InputError(f"{path}: has no annotations of {picture.name}")
    width, height = annotations.sizes.get(name, shape[:2])
    if (width, height) != shape[:2]:
        sizes = f"is annotated on {width} × {height} pixels and has {shape[0]} × {shape[1]}"
        raise InputError(f"{path}: {picture.name} {sizes}: give the picture that was annotated")
    if shape[2] != 1:
        raise InputError(f"{path}: annotations are of single pictures, {picture.name} has {shape[2]} pages")
    labels = np.zeros((shape[1], shape[0]), dtype=np.int32)
    work = _Work(picture.name, labels.size)
    for region in annotations.pictures[name]:
        with _named_errors(path):
            _draw(labels, region, annotations.values[region.name], work)
    return np.ascontiguousarray(labels.T)[:, :, None]


def _draw(labels: np.ndarray, region: Region, value: int, work: _Work) -> None:
    """Set the pixels of a region."""
    if region.mask is not None:
        (height, width), (top, left) = region.mask.size, region.mask.corner
        if not (0 <= top <= top + height <= labels.shape[0] and 0 <= left <= left + width <= labels.shape[1]):
            raise InputError(f"a region of {region.mask.size} pixels leaves its picture of {labels.shape}")
        pixels, row, column = region.mask.unpack()
        block = labels[top + row :, left + column :][: len(pixels), : pixels.shape[1]]
        block[pixels != 0] = value
        work.add((pixels.size + (UNSET - 1) * int(np.count_nonzero(pixels))) // UNSET)
    for corners in region.polygons:
        sides = np.array(labels.shape[::-1])
        if not np.all((corners >= -sides) & (corners <= 2 * sides)):  # nor where one is no number
            raise InputError(f"a polygon must lie on its picture of {labels.shape}, or near it")
        if len(corners) >= 3:
            _fill(labels, corners.astype(np.int64), value, work)


def _fill(labels: np.ndarray, corners: np.ndarray, value: int, work: _Work) -> None:
    """Fill a polygon on a canvas of its rows; Pillow takes whole pixels, and rounds alike where columns stay."""
    from PIL import Image, ImageDraw

    (left, top), (right, bottom) = np.maximum(corners.min(0), 0), np.minimum(corners.max(0) + 1, labels.shape[::-1])
    if right <= left or bottom <= top:
        return
    crossings = np.abs(np.diff(corners[:, 1], append=corners[0, 1])).sum()
    work.add(int((right - left + right // EMPTY + len(corners)) * (bottom - top) + CROSSING * crossings))
    canvas = Image.new("1", (int(right), int(bottom - top)))
    ImageDraw.Draw(canvas).polygon((corners - (0, top)).ravel().tolist(), fill=1, outline=1)
    labels[top:bottom, left:right][np.asarray(canvas.crop((int(left), 0, *canvas.size)))] = value


def load_annotations(path: Path) -> Annotations:
    """The annotations of a file, kept in memory for its other pictures. Raises NotAnnotations for a file of another
    kind, and InputError for annotations that are damaged.
    """
    status = path.stat()
    return _load(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _load(path: Path, _changed: int, size: int) -> Annotations:
    if size > MAX_BYTES:
        raise InputError(f"{path}: annotations of at most {MAX_BYTES:,} bytes are supported, got {size:,}")
    with _named_errors(path):
        annotations = _parsed(path)
    if BACKGROUND in annotations.values:
        annotations.values[BACKGROUND] = 0
    return annotations


def _parsed(path: Path) -> Annotations:
    content = path.read_bytes()
    if path.suffix.lower() == ".xml":
        _check_parts(content.count(b"<") + content.count(b"=") // 2, len(content))
        return read_cvat(content)
    _check_parts(content.count(b"[") + content.count(b"{"), len(content))
    try:
        data = parse_json(content.decode("utf-8-sig"))
    except ValueError:
        raise NotAnnotations("is no JSON") from None
    if isinstance(data, dict) and {"images", "annotations", "categories"} <= set(data):
        return read_coco(data)
    if isinstance(data, list) and data and isinstance(data[0], dict) and {"data", "annotations"} <= set(data[0]):
        return read_label_studio(data)
    raise NotAnnotations("is neither COCO's, CVAT's nor Label Studio's annotations")


def _check_parts(number: int, size: int) -> None:
    if number > (limit := FREE_PARTS + size // BYTES_PER_PART):
        raise InputError(f"annotations of {size:,} bytes must have at most {limit:,} lists or elements, got {number:,}")


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Errors of damaged annotations as one line with the file's name."""
    try:
        with np.errstate(all="ignore"):  # what comes of strange numbers is judged
            yield
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None
    except KeyError as error:
        reason = f"they refer to {error.args[0]!r}, which they do not define"
        raise InputError(f"{path}: its annotations are damaged: {reason}") from None
    except FILE_ERRORS as error:
        raise InputError(f"{path}: cannot be read as annotations: {type(error).__name__}; export them again") from None
