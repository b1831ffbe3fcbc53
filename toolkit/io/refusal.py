"""Refusals of files in one line: what the first bytes show that they really are, or the library's own words."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attunet.errors import InputError, one_line

START_BYTES = 4096
PICTURE = "a picture"
AGAIN = "copy or download it again"

DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)
DAMAGE_WORDS = "Binary block is wrong size"  # of nibabel

# Contents that no reader takes, by their first bytes, with the reason.
NO_IMAGE = (
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file itself: fetch it with git lfs pull"),
    (b"<!doctype html", f"is a web page, not an image: the site wanted a login or another address; {AGAIN}"),
    (b"<html", f"is a web page, not an image: the site wanted a login or another address; {AGAIN}"),
    (b"pk\x03\x04", "is a zip archive, whatever its name says: unpack it, or let its name end in .zip"),
    (b"\x93numpy", "is an array of NumPy, which states no voxel size: write it as NIfTI"),
    (b"\x89hdf", "is an HDF5 file, which is not read: write its images as NIfTI"),
)
# Formats that are read under their own names: place and bytes of their mark, the format's name, the endings.
IMAGES = (
    (0, b"\x1f\x8b", "is gzipped", (".gz", ".mgz")),
    (0, b"\x89PNG\r\n", "is a PNG", (".png",)),
    (0, b"\xff\xd8\xff", "is a JPEG", (".jpg", ".jpeg")),
    (0, b"II*\0", "is a TIFF", (".tif", ".tiff")),
    (0, b"MM\0*", "is a TIFF", (".tif", ".tiff")),
    (0, b"NRRD000", "is an NRRD", (".nrrd", ".nhdr")),
    (0, b"ObjectType", "is a MetaImage", (".mha", ".mhd")),
    (0, b"NDims", "is a MetaImage", (".mha", ".mhd")),
    (128, b"DICM", "is DICOM", (".dcm", ".dicom", ".ima")),
    (344, b"n+1\0", "is NIfTI without gzip", (".nii",)),
    (4, b"n+2\0", "is NIfTI without gzip", (".nii",)),
)
PICTURES = ("is a PNG", "is a JPEG", "is a TIFF")  # Pillow reads them under each other's names


def refuse_unending(path: Path) -> None:
    """Raise InputError for a pipe or a device in the place of a file or a folder; a path to nothing is fine."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: must be a file or a folder; reading a pipe or a device might never end")


@contextmanager
def needs(path: Path, what: str, extra: str) -> Iterator[None]:
    """Imports a library of an extra; InputError says how to install it. what: `DICOM needs pydicom`."""
    try:
        yield
    except ImportError:
        raise InputError(f"{path}: {what}, which is not installed: pip install 'attunet[{extra}]'") from None


@contextmanager
def refused_as(
    path: Path,
    form: str,
    errors: tuple[type[Exception], ...],
    words: Callable[[Exception], Exception | str] = lambda e: e,
) -> Iterator[None]:
    """Reads a file: an error of a library becomes a `refusal`, in its own or in other words; InputError passes."""
    try:
        yield
    except InputError:
        raise
    except errors as error:
        raise refusal(path, form, words(error)) from None


def refusal(path: Path, form: str, reason: Exception | str) -> InputError:
    """The error for a file that a reader cannot read: what it really is or, where that is unknown, the reason.

    `form` is the format that its name promises, `reason` the library's error, or a clause.
    """
    if contents := other_contents(path, is_picture=form == PICTURE):
        return InputError(f"{path}: {contents}")
    if isinstance(reason, str):
        return InputError(f"{path}: cannot be read as {form}: {reason}")
    ending = f"; {AGAIN}" if isinstance(reason, DAMAGE) or DAMAGE_WORDS in str(reason) else ""
    return InputError(f"{path}: cannot be read as {form}: {one_line(reason)}{ending}")


def other_contents(path: Path, *, is_picture: bool = False) -> str | None:
    """A clause on contents that the name does not promise, and what to do; None where the first bytes tell nothing."""
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
    except OSError:
        return None
    if not start:
        return f"is empty (0 bytes): {AGAIN}"
    if not start.strip(b"\0"):
        return f"begins with zeros alone, as a transfer that broke off leaves it: {AGAIN}"
    plain = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"annex/objects/" in plain[:200]:
        return "is a pointer of git-annex, not the file itself: fetch it with datalad get or git annex get"
    if clause := next((clause for mark, clause in NO_IMAGE if plain.startswith(mark)), None):
        return clause
    name = path.name.lower()
    for place, mark, clause, endings in IMAGES:
        if start.startswith(mark, place) and not name.endswith(endings) and not (is_picture and clause in PICTURES):
            return f"{clause}, whatever its name says: rename it so that it ends in {endings[0]}"
    return None
