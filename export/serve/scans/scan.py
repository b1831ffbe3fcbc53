"""Uploaded files as a scan: formats recognised by their first bytes, zip archives unpacked within bounds."""

import zipfile
import zlib
from pathlib import Path

from attunet.errors import InputError, TooLarge
from attunet.export.serve.formats import MARKS
from attunet.export.serve.refusal import TOO_LARGE, Refusal
from attunet.export.serve.settings import MB, Settings
from attunet.io.archives import extract, open_zip
from attunet.io.dicom.file import is_dicom
from attunet.io.gzip_file import open_gzip
from attunet.sources.input import Input
from attunet.sources.inputs import find_inputs

MGH_MARK = b"\x00\x00\x00\x01"  # inside a gzipped file of FreeSurfer
MAX_FILES = 4096  # of a zip archive: every file of a series is opened


def open_scan(files: list[Path], folder: Path, settings: Settings) -> Input:
    """The scan in a request's files, one for each channel. Raises InputError, or Refusal for too large an archive."""
    named = [_named(file, f"channel-{number}" if len(files) > 1 else "scan") for number, file in enumerate(files)]
    if len(named) == 1 and named[0].suffix == ".zip":
        return _unpacked(named[0], folder / "series", settings)
    if any(file.suffix == ".zip" for file in named):
        raise InputError("scan: a zip archive must be the only file of a request")
    return Input("scan", tuple(named))


def _named(file: Path, stem: str) -> Path:
    """The file under a name with the ending of its format."""
    with file.open("rb") as opened:
        start = opened.read(16)
    marked = (ending for ending, marks in MARKS.items() if start.startswith(marks))
    ending = ".dcm" if is_dicom(file) else next(marked, "")  # DICOM begins with any 128 bytes, a TIFF's too
    if ending == ".nii.gz" and _inflated(file, len(MGH_MARK)) == MGH_MARK:
        ending = ".mgz"
    if not ending:
        raise InputError(
            "scan: must be NIfTI, DICOM (a file, or a zip of a series), NRRD, MHA, MGZ, PNG, TIFF, JPEG, BMP or GIF"
        )
    return file.rename(file.with_name(stem + ending))


def _inflated(file: Path, count: int) -> bytes:
    try:
        with open_gzip(file) as opened:
            return opened.read(count)
    except (OSError, EOFError, zlib.error):
        return b""


def _unpacked(archive: Path, folder: Path, settings: Settings) -> Input:
    _check_content(archive, settings.max_unpacked_mb)
    extract(archive, folder, lambda name: not name.startswith(("__MACOSX/", ".")) and "/." not in name)
    archive.unlink()
    folder.mkdir(exist_ok=True)  # nothing was in it
    inputs = find_inputs(folder, note=_refuse_rest, layouts=False)  # a client's data set may take hours to understand
    if len(inputs) != 1:
        raise InputError(f"scan.zip: must hold one series or one volume, got {len(inputs)}")
    return inputs[0]


def _refuse_rest(text: str) -> None:
    raise InputError(f"scan.zip: must hold one series or one volume: {text}")


def _check_content(archive: Path, max_mb: int) -> None:
    try:
        with open_zip(archive, MAX_FILES) as opened:
            size = sum(member.file_size for member in opened.infolist())
    except TooLarge as error:
        raise Refusal(TOO_LARGE, str(error).replace(str(archive), "scan.zip")) from None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # `extract` says what is wrong
    if size > max_mb * MB:
        raise Refusal(TOO_LARGE, f"scan.zip: must unpack to at most {max_mb} MB, its directory says {size / MB:,.0f}")
