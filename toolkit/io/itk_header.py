"""Headers of NRRD and MetaImage: the file that holds the voxels, and a check that all of them are there and undamaged.

ITK reads a stream that breaks off, or whose checksum is wrong, without an error or with one that names no file.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

from attunet.errors import InputError
from attunet.io.refusal import AGAIN, refusal

MAX_HEADER_BYTES = 2**20
CHUNK_BYTES = 2**20
NRRD_SUFFIXES = (".nrrd", ".nhdr")
ORIENTATION_KEYS = ("space", "transformmatrix", "rotation", "orientation")
DATA_FILE_KEYS = ("elementdatafile", "data file", "datafile")


@dataclass(frozen=True)
class StoredVoxels:
    """The place of an image's voxels.

    Args:
        path: the header's file.
        holder: the file with the voxels, which may be the same.
        offset: their first byte; None where the header does not say it plainly.
        encoding: raw, zlib or another name.
        states_orientation: True where the header names its space (NRRD) or has a matrix of directions (MetaImage).
    """

    path: Path
    holder: Path
    offset: int | None
    encoding: str
    states_orientation: bool


def read_itk_header(path: Path) -> StoredVoxels:
    """Reads the lines of a header that say where the voxels are.

    Raises:
        InputError: for a header without an end, and voxels elsewhere than in the file or in one file beside it.
    """
    with path.open("rb") as file:
        start = file.read(MAX_HEADER_BYTES)
    is_nrrd = path.suffix.lower() in NRRD_SUFFIXES
    header, end = _split_nrrd(start) if is_nrrd else _split_meta(start)
    keys: dict[str, str] = {}
    for line in header.split(b"\n")[:1000]:
        key, _, value = line.replace(b"=", b":", 1).partition(b":")
        keys.setdefault(key.strip().lower().decode("latin-1"), value.strip().decode("utf-8", "replace"))
    name = next((keys[key] for key in DATA_FILE_KEYS if key in keys), "")
    if not is_nrrd and not name:
        reason = f"its header has no line ElementDataFile; is it damaged or cut short? {AGAIN}"
        raise refusal(path, "NRRD or MetaImage", reason)
    holder = path if name.upper() in ("", "LOCAL") else _beside(path, name)
    if is_nrrd:
        stated = keys.get("encoding", "raw").lower()
        encoding = "zlib" if stated in ("gz", "gzip") else stated
        is_plain = keys.get("line skip", "0") == "0" and keys.get("byte skip", "0") == "0"
    else:
        encoding = "zlib" if keys.get("compresseddata", "").lower() in ("true", "1") else "raw"
        encoding = "ascii" if keys.get("binarydata", "true").lower() in ("false", "0") else encoding
        is_plain = keys.get("headersize", "0") == "0"
    offset = (end if holder == path else 0) if is_plain else None
    return StoredVoxels(path, holder, offset, encoding, any(key in keys for key in ORIENTATION_KEYS))


def _split_nrrd(start: bytes) -> tuple[bytes, int]:
    """The header, which an empty line ends, and the place after it."""
    ends = [(at, len(mark)) for mark in (b"\n\n", b"\r\n\r\n") if (at := start.find(mark)) >= 0]
    at, length = min(ends, default=(len(start), 0))
    return start[:at], at + length


def _split_meta(start: bytes) -> tuple[bytes, int]:
    """The header, whose last line is ElementDataFile, and the place after it."""
    at = start.lower().find(b"elementdatafile")
    if at < 0:
        return start, len(start)
    line_end = start.find(b"\n", at)
    end = len(start) if line_end < 0 else line_end + 1
    return start[:end], end


def _beside(path: Path, name: str) -> Path:
    beside = path.parent / name
    if Path(name).name != name or beside.is_symlink():
        raise InputError(f"{path}: its voxels must lie in one file beside it, got {name!r}")
    if not beside.is_file():
        raise InputError(f"{path}: its voxels lie in {name}, which is not there: put it beside the header")
    return beside


def check_stored(stored: StoredVoxels, size: int) -> None:
    """Raises InputError where fewer than `size` bytes of voxels are there, or the compressed ones are damaged."""
    if stored.offset is None or stored.encoding not in ("raw", "zlib"):
        return
    beside = stored.holder != stored.path
    subject = f"{stored.holder} (the voxels of {stored.path.name})" if beside else str(stored.path)
    if stored.encoding == "raw":
        if (present := stored.holder.stat().st_size - stored.offset) < size:
            said = f"the header says {size:,} bytes of voxels, there are {present:,}"
            raise InputError(f"{subject}: is cut short: {said}; {AGAIN}")
        return
    try:
        present, is_whole = _inflated(stored.holder, stored.offset, size)
    except zlib.error:
        raise InputError(f"{subject}: its compressed voxels are damaged: {AGAIN}") from None
    if present < size or not is_whole:
        raise InputError(f"{subject}: is cut short: its compressed voxels break off; {AGAIN}")


def _inflated(path: Path, offset: int, size: int) -> tuple[int, bool]:
    """Bytes that a zlib or gzip stream unpacks to, and True where it ends with its checksum; nothing of it is kept."""
    stream, present = zlib.decompressobj(wbits=47), 0  # 47: zlib's or gzip's header
    with path.open("rb") as file:
        file.seek(offset)
        while not stream.eof and present <= size and (chunk := file.read(CHUNK_BYTES)):
            while chunk and present <= size:
                present += len(stream.decompress(chunk, CHUNK_BYTES))
                chunk = stream.unconsumed_tail
    present += len(stream.flush())  # less than a window, where the last chunk was taken in without its output
    return present, stream.eof or present > size
