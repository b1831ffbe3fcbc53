"""One DICOM file through pydicom (the extra `dicom`): the mark, the header,
and the pixels of its frames behind checks of their size.
"""

import re
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from attunet.decisions import Choices, Decision, choice
from attunet.errors import InputError
from attunet.io.dicom.decode import DECODER, DecodingError, Request
from attunet.io.reading import FILE_ERRORS, MAX_VOXELS
from attunet.io.refusal import AGAIN

if TYPE_CHECKING:
    from pydicom import FileDataset

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
UNCOMPRESSED = (IMPLICIT, EXPLICIT, BIG_ENDIAN)
RLE = "1.2.840.10008.1.2.5"
COMPRESSED = (
    RLE,
    *(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91, 201, 202, 203)),  # JPEG, JPEG-LS, JPEG 2000
)
MAX_FILE_BYTES = 2**30
MAX_SIDE = 2**15
MAX_RLE_RATIO = 64  # pixels by compressed bytes: RLE repeats a byte 128 times at most, which takes two
MAX_RATIO, SMALL_BYTES = 1000, 2**26  # of other forms, beyond pixels that harm nobody: black slices pack well
LONG_FORM = (b"OB", b"OW", b"OF", b"OD", b"OL", b"SQ", b"UN", b"UT", b"UC", b"UR")
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")  # of files without a preamble: the meta group, or the identifying one
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOURED = ("PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420")
DERIVED = ("RTDOSE", "RTIMAGE", "SEG", "PR", "KO")  # modalities of objects with pixels that are no scan
QUANTITATIVE = ("CT", "PT")  # modalities whose values have a unit, whatever is white on a screen

WITHOUT_A_PLACE = "; write radiographs and other pictures without a place in the patient as PNG or TIFF"

Result = TypeVar("Result")


def is_dicom(path: Path) -> bool:
    """True for a file with DICOM's mark, or whose first elements are DICOM's although the 128 bytes before the mark are
    missing.
    """
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or lacks_preamble(start)


def lacks_preamble(start: bytes) -> bool:
    """True where a file begins with an element of DICOM's first groups."""
    if start[:2] not in FIRST_GROUPS or start[128:132] == b"DICM" or len(start) < 16 or start[3] != 0:
        return False
    named = start[4:6].isalpha() and start[4:6].isupper()
    return named if start[:2] == FIRST_GROUPS[0] else named or int.from_bytes(start[4:8], "little") <= 64


def read_header(path: Path) -> "FileDataset":
    """A file's header as pydicom has it, without the pixels, after the same checks as before reading them."""

    def without_pixels(dataset: "FileDataset", _syntax: str) -> "FileDataset":
        if "PixelData" in dataset:
            del dataset.PixelData
        return dataset

    return with_dataset(path, without_pixels)


def with_dataset(path: Path, use: Callable[["FileDataset", str], Result]) -> Result:
    """Calls `use` with a file's data set and transfer syntax.

    Raises:
        InputError: for a file that is damaged, too large, in a transfer syntax that is not read, or lacks an element
            that `use` needs.
    """
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise InputError(f"{path}: a DICOM file of at most {MAX_FILE_BYTES:,} bytes is supported, got {size:,}")
    try:
        import pydicom
    except ImportError:
        raise InputError(f"{path}: DICOM needs pydicom, which is not installed: pip install 'attunet[dicom]'") from None
    try:
        raw = path.read_bytes()  # so that no element can ask for more than there is
        syntax = _transfer_syntax(raw)
        if syntax not in (*UNCOMPRESSED, *COMPRESSED):
            raise InputError(
                f"{path}: the transfer syntax {syntax or 'of a damaged header'} is not read; decompress it, e.g. with "
                "dcmdjpeg"
            )
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")  # warnings quote the header, and with it a patient
            return use(pydicom.dcmread(BytesIO(raw), force=True), syntax)
    except InputError:
        raise
    except AttributeError as error:
        keyword = re.search(r"has no attribute '([A-Z][A-Za-z]+)'", str(error))
        if keyword is None:
            raise InputError(f"{path}: cannot be read as DICOM: AttributeError") from None
        raise InputError(
            f"{path}: is no slice of a volume: the element {keyword[1]} is missing{WITHOUT_A_PLACE}"
        ) from None
    except (*FILE_ERRORS, pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException) as error:
        # Only the kind of error: its text may quote the header, and with it a patient.
        reason = f"cannot be read as DICOM: {type(error).__name__}; is it damaged or cut short? {AGAIN}"
        raise InputError(f"{path}: {reason}") from None


def _transfer_syntax(raw: bytes) -> str:
    """A UID or nothing, from the meta group alone: pydicom would inflate a deflated file without a bound."""
    at, uid = (0 if lacks_preamble(raw[:132]) else 132), b""
    if raw[at : at + 2] != b"\x02\x00":
        return EXPLICIT if raw[at + 4 : at + 6].isalpha() else IMPLICIT
    while at + 8 <= len(raw) and raw[at : at + 2] == b"\x02\x00":
        element, kind, length = (
            raw[at + 2 : at + 4],
            raw[at + 4 : at + 6],
            int.from_bytes(raw[at + 6 : at + 8], "little"),
        )
        at += 8
        if kind in LONG_FORM:
            length = int.from_bytes(raw[at : at + 4], "little")
            at += 4
        if element == b"\x10\x00":
            uid = raw[at : at + length].rstrip(b"\0 ")
        at += length
    return uid.decode() if re.fullmatch(rb"[0-9.]{1,64}", uid) else ""


def check_kind(path: Path, dataset: "FileDataset") -> None:
    """Raises InputError, with the kind of the object, for DICOM that holds no scan (reports, RT plans and doses,
    DICOMDIR).
    """
    modality = str(dataset.get("Modality", ""))
    if "PixelData" in dataset and "Rows" in dataset and modality not in DERIVED:
        return
    from pydicom.uid import UID

    uid = UID(str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID", "")))
    kind = uid.name if uid.name != uid else ""  # an unknown UID may be any text, of a patient too
    if "Image Storage" in kind and modality not in DERIVED:
        raise InputError(f"{path}: is cut short, or a header alone: the element PixelData is missing; {AGAIN}")
    reason = f"its modality is {modality}" if modality in DERIVED else "the element PixelData is missing"
    raise InputError(f"{path}: is no image of slices but {kind or 'DICOM of an unnamed kind'}: {reason}; leave it out")


def frames_of(path: Path, dataset: "FileDataset", syntax: str, choices: Choices) -> tuple[np.ndarray, list[Decision]]:
    """The stored values `(frames, rows, columns)` of a grey image, and the decisions.

    Raises:
        InputError: for colour, too many pixels, or pixel data that is cut short or of another size than the header
            says.
    """
    rows, columns, bits = int(dataset.Rows), int(dataset.Columns), int(dataset.BitsAllocated)
    frames, samples = int(dataset.get("NumberOfFrames") or 1), int(dataset.get("SamplesPerPixel", 1))
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if photometric not in GREY or samples != 1:
        named = photometric if photometric in (*COLOURED, *GREY) else "another photometric interpretation"
        raise InputError(
            f"{path}: is a colour image ({named}, {samples} samples a pixel), which is not read: leave it out, or "
            "write pictures as PNG"
        )
    if not (1 <= rows <= MAX_SIDE and 1 <= columns <= MAX_SIDE and frames >= 1) or bits not in (8, 16, 32):
        raise InputError(
            f"{path}: must be grey frames of 8, 16 or 32 bits and at most {MAX_SIDE} pixels a side, "
            f"got {frames} × {rows} × {columns} of {bits} bits"
        )
    if frames * rows * columns > MAX_VOXELS:
        raise InputError(
            f"{path}: at most {MAX_VOXELS:,} voxels are supported, the header says {frames * rows * columns:,}"
        )
    signed = bool(dataset.get("PixelRepresentation", 0))
    if syntax in UNCOMPRESSED:
        kind = np.dtype(f"{'>' if syntax == BIG_ENDIAN else '<'}{'i' if signed else 'u'}{bits // 8}")
        content, needed = dataset.PixelData, frames * rows * columns * kind.itemsize
        if len(content) < needed:
            raise InputError(
                f"{path}: is cut short: its pixels need {needed:,} bytes, the file has {len(content):,}; {AGAIN}"
            )
        stored = np.frombuffer(content[:needed], kind).astype(kind.newbyteorder("="))
    else:
        stored = _decoded(path, dataset, syntax, (frames, rows, columns)).astype(f"{'i' if signed else 'u'}{bits // 8}")
    return _meant(dataset, stored.reshape(frames, rows, columns), choices)


def _decoded(path: Path, dataset: "FileDataset", syntax: str, shape: tuple[int, int, int]) -> np.ndarray:
    from pydicom.encaps import generate_frames
    from pydicom.pixels import get_decoder

    frames, rows, columns = shape
    size, content = frames * rows * columns * int(dataset.BitsAllocated) // 8, len(dataset.PixelData)
    if size > (MAX_RLE_RATIO * content if syntax == RLE else SMALL_BYTES + MAX_RATIO * content):
        raise InputError(
            f"{path}: its header says {size:,} bytes of pixels, and {content:,} compressed bytes are there: is it cut "
            f"short? {AGAIN}"
        )
    if syntax != RLE:  # RLE's decoder takes the size from the header
        for number, frame in enumerate(generate_frames(dataset.PixelData, number_of_frames=frames)):
            if codestream_size(frame) != (rows, columns) or number >= frames:
                raise InputError(f"{path}: its compressed frames must have the {rows} × {columns} pixels of the header")
    decoder = get_decoder(syntax)
    if not decoder.is_available:
        raise InputError(f"{path}: {syntax} needs a decoder that is not installed: pip install 'attunet[dicom]'")
    if syntax == RLE:  # in Python
        pixels, _ = decoder.as_array(dataset, raw=True)
        return np.asarray(pixels)
    request = Request(
        syntax=syntax,
        rows=rows,
        columns=columns,
        number_of_frames=frames,
        bits_allocated=int(dataset.BitsAllocated),
        bits_stored=int(dataset.get("BitsStored") or dataset.BitsAllocated),
        pixel_representation=int(dataset.get("PixelRepresentation", 0)),
        photometric_interpretation=str(dataset.get("PhotometricInterpretation", "MONOCHROME2")),
    )
    try:
        return DECODER.decode(request, dataset.PixelData)
    except DecodingError as error:
        raise InputError(
            f"{path}: its compressed pixels cannot be decoded ({error}); is it damaged or cut short? {AGAIN}"
        ) from None


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 stream itself names, None where it names none.

    Decoders reserve memory by these figures, so they are compared with the header first.
    """
    if frame[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: the marker SIZ comes second
        width, height, left, top = (int.from_bytes(frame[at : at + 4], "big") for at in range(8, 24, 4))
        return height - top, width - left
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return int.from_bytes(frame[at + 5 : at + 7], "big"), int.from_bytes(frame[at + 7 : at + 9], "big")
        at += 1 if marker == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None


def _meant(dataset: "FileDataset", stored: np.ndarray, choices: Choices) -> tuple[np.ndarray, list[Decision]]:
    """Values as BitsStored and HighBit say, turned where the lowest value is white; with the decisions."""
    decisions = []
    allocated = 8 * stored.itemsize
    bits = int(dataset.get("BitsStored") or allocated)
    high = int(dataset.get("HighBit", bits - 1))
    if 1 <= bits <= allocated and bits - 1 <= high < allocated and choice("dicom-bits", choices) == "stored":
        values = (stored << (allocated - 1 - high)) >> (allocated - bits)
        if (values != stored).any():
            decisions.append(
                Decision("dicom-bits", f"{bits} of {allocated} bits are values, as BitsStored and HighBit say")
            )
        stored = values
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        reading = choice("monochrome1", choices)
        inverted = reading == "inverted" or (reading == "auto" and dataset.get("Modality") not in QUANTITATIVE)
        decisions.append(
            Decision(
                "monochrome1", "values are inverted, so that bright is high" if inverted else "values stay as stored"
            )
        )
        stored = ~stored if inverted else stored
    return stored, decisions
