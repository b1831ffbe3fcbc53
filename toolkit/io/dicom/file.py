"""One DICOM file through pydicom (the extra `dicom`): its mark, its header and its transfer syntax."""

import re
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from attunet.errors import InputError
from attunet.io.reading import FILE_ERRORS
from attunet.io.refusal import AGAIN, needs

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
LONG_FORM = (b"OB", b"OW", b"OF", b"OD", b"OL", b"SQ", b"UN", b"UT", b"UC", b"UR")
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")  # of files without a preamble: the meta group, or the identifying one
DERIVED = ("RTDOSE", "RTIMAGE", "SEG", "PR", "KO")  # modalities of objects with pixels that are no scan
WITHOUT_A_PLACE = "; write radiographs and other pictures without a place in the patient as PNG or TIFF"
Result = TypeVar("Result")


def is_dicom(path: Path) -> bool:
    """True for a file with DICOM's mark, or that begins with DICOM's elements where the preamble should be."""
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
    with needs(path, "DICOM needs pydicom", "dicom"):
        import pydicom
    try:
        raw = path.read_bytes()  # so that no element can ask for more than there is
        syntax = _transfer_syntax(raw)
        if syntax not in (*UNCOMPRESSED, *COMPRESSED):
            named = syntax or "of a damaged header"
            raise InputError(f"{path}: the transfer syntax {named} is not read; decompress it, e.g. with dcmdjpeg")
        # Warnings quote the header, and with it a patient
        with warnings.catch_warnings(action="ignore"), pydicom.config.disable_value_validation():
            return use(pydicom.dcmread(BytesIO(raw), force=True), syntax)
    except InputError:
        raise
    except AttributeError as error:
        keyword = re.search(r"has no attribute '([A-Z][A-Za-z]+)'", str(error))
        missing = keyword and f"is no slice of a volume: the element {keyword[1]} is missing{WITHOUT_A_PLACE}"
        raise InputError(f"{path}: {missing or 'cannot be read as DICOM: AttributeError'}") from None
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
        element, kind = raw[at + 2 : at + 4], raw[at + 4 : at + 6]
        length = int.from_bytes(raw[at + 6 : at + 8], "little")
        at += 8
        if kind in LONG_FORM:
            length = int.from_bytes(raw[at : at + 4], "little")
            at += 4
        if element == b"\x10\x00":
            uid = raw[at : at + length].rstrip(b"\0 ")
        at += length
    return uid.decode() if re.fullmatch(rb"[0-9.]{1,64}", uid) else ""


def check_kind(path: Path, dataset: "FileDataset") -> None:
    """Raises InputError with the kind of the object for DICOM that holds no scan (reports, RT plans, DICOMDIR)."""
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
