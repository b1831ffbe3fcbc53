"""One DICOM file through pydicom (the extra `dicom`): its mark, its header and its transfer syntax."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from attunet.errors import InputError
from attunet.io.dicom.bounded_reads import BoundedReads, drop_long_elements
from attunet.io.reading import FILE_ERRORS, QUIET, Shared
from attunet.io.refusal import AGAIN, needs
from attunet.system.deadline import check_end

if TYPE_CHECKING:
    from pydicom import FileDataset

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
UNCOMPRESSED = (IMPLICIT, EXPLICIT, BIG_ENDIAN)
RLE = "1.2.840.10008.1.2.5"
COMPRESSED = (
    RLE,
    *(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91, 201, 202, 203)),  # JPEG, JPEG-LS, JPEG 2000
)
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
MAX_FILE_BYTES = 2**30
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")  # of files without a preamble: the meta group, or the identifying one
DERIVED = ("RTDOSE", "RTIMAGE", "SEG", "PR", "KO")  # modalities of objects with pixels that are no scan
WITHOUT_A_PLACE = "; write radiographs and other pictures without a place in the patient as PNG or TIFF"


def _no_validation() -> AbstractContextManager[None]:
    import pydicom

    return pydicom.config.disable_value_validation()


_NO_VALIDATION = Shared(_no_validation)


def is_dicom(path: Path) -> bool:
    """True for a file with DICOM's mark, or that begins with DICOM's elements where the preamble should be."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or lacks_preamble(start)


def may_be_slice(path: Path) -> bool:
    """True for DICOM that is no list of other files (DICOMDIR)."""
    return path.name.upper() != "DICOMDIR" and is_dicom(path)


def lacks_preamble(start: bytes) -> bool:
    """True where a file begins with an element of DICOM's first groups."""
    if start[:2] not in FIRST_GROUPS or start[128:132] == b"DICM" or len(start) < 16 or start[3] != 0:
        return False
    named = start[4:6].isalpha() and start[4:6].isupper()
    return named if start[:2] == FIRST_GROUPS[0] else named or int.from_bytes(start[4:8], "little") <= 64


@contextmanager
def dataset_of(path: Path, num_files: int = 1) -> Iterator["FileDataset"]:
    """A file's data set, which ends with the context: pydicom converts an element at its first use, and may fail there.
    Nothing else opens DICOM. `num_files` are read one after the other, as those of a series are, and share the reads
    that a file has whatever its size.

    Raises InputError for a file that is damaged, too large, in a transfer syntax that is not read, or lacks an element
    that is used.
    """
    check_end()
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise InputError(f"{path}: a DICOM file of at most {MAX_FILE_BYTES:,} bytes is supported, got {size:,}")
    with needs(path, "DICOM needs pydicom", "dicom"):
        import pydicom
    content = BoundedReads(path.read_bytes(), path, num_files)  # so that no element can ask for more than there is
    try:
        with QUIET, _NO_VALIDATION:
            dataset = pydicom.dcmread(content, force=True)
            drop_long_elements(dataset)
            _check_syntax(path, dataset)
            yield dataset
    except InputError:
        raise
    except AttributeError as error:
        keyword = re.search(r"has no attribute '([A-Z][A-Za-z]+)'", str(error))
        missing = keyword and f"is no slice of a volume: the element {keyword[1]} is missing{WITHOUT_A_PLACE}"
        raise InputError(f"{path}: {missing or 'cannot be read as DICOM: AttributeError'}") from None
    except pydicom_errors() as error:
        # Only the kind of error: its text may quote the header, and with it a patient.
        reason = f"cannot be read as DICOM: {type(error).__name__}; is it damaged or cut short? {AGAIN}"
        raise content.refusal or InputError(f"{path}: {reason}") from None


def modality_of(path: Path, num_files: int = 1) -> str:
    """MR, CT, SEG, ..., empty where the element is missing. Raises InputError as `dataset_of` does."""
    with dataset_of(path, num_files) as dataset:
        return str(dataset.get("Modality", "")).strip()


def pydicom_errors() -> tuple[type[Exception], ...]:
    """The exceptions of pydicom on files that are damaged or made to harm; their texts may quote the header."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (*FILE_ERRORS, StopIteration, InvalidDicomError, BytesLengthException)


def syntax_of(dataset: "FileDataset") -> str:
    """The transfer syntax that a file names, or the one by which pydicom has read a file that names none."""
    stated = str(dataset.file_meta.get("TransferSyntaxUID") or "")
    return stated or {(True, True): IMPLICIT, (False, True): EXPLICIT}.get(dataset.original_encoding, BIG_ENDIAN)


def _check_syntax(path: Path, dataset: "FileDataset") -> None:
    if (syntax := syntax_of(dataset)) not in (*UNCOMPRESSED, *COMPRESSED):
        named = syntax if re.fullmatch(r"[0-9.]{1,64}", syntax) else "of a damaged header"
        raise InputError(f"{path}: the transfer syntax {named} is not read; decompress it, e.g. with dcmdjpeg")


def check_kind(path: Path, dataset: "FileDataset") -> None:
    """Raises InputError with the kind of the object for DICOM that holds no scan (reports, RT plans, DICOMDIR)."""
    modality = str(dataset.get("Modality", "")).strip()
    if "MOSAIC" in str(dataset.get("ImageType", "")):
        advice = "convert it to NIfTI, e.g. with dcm2niix"
        raise InputError(f"{path}: is a mosaic, one picture of all slices of a volume, which is not read: {advice}")
    if "PixelData" in dataset and "Rows" in dataset and modality not in DERIVED:
        return
    from pydicom.uid import UID

    uid = UID(str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID", "")))
    kind = uid.name if uid.name != uid else ""  # an unknown UID may be any text, of a patient too
    if "Image Storage" in kind and modality not in DERIVED:
        raise InputError(f"{path}: is cut short, or a header alone: the element PixelData is missing; {AGAIN}")
    reason = f"its modality is {modality}" if modality in DERIVED else "the element PixelData is missing"
    raise InputError(f"{path}: is no image of slices but {kind or 'DICOM of an unnamed kind'}: {reason}; leave it out")
