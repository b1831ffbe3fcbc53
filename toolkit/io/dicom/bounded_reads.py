"""Bounds of the work that pydicom does in Python for a file's elements."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, cast

from attunet.errors import InputError
from attunet.io.refusal import AGAIN

if TYPE_CHECKING:
    from pydicom import Dataset, FileDataset

DEFLATED = "1.2.840.10008.1.2.1.99"
MIN_READS = 2**17  # that the files of a series may take together: about two for an element or an item
READS_PER_FILE = 2**10  # and each of them, whatever its size
BYTES_PER_READ = 64  # above these, a file of N bytes may take N / 64 more: a frame of 64 × 64 pixels has about 170
MAX_CHARACTER_SET_BYTES, CHARACTER_SET = 256, (b"\x08\x00\x05\x00", b"\x00\x08\x00\x05")
MAX_ELEMENT_BYTES = 2**10  # of an element that is converted: numbers, names of 3 × 64 characters, descriptions
LONG_ELEMENTS = (
    *("PixelData", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ModalityLUTSequence"),
)
SHORT_ELEMENTS = (  # without which the pixels would mean something else
    *("NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "HighBit", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "SpacingBetweenSlices", "SliceThickness", "Modality"),
)


class TooManyElements(InputError):
    """A file is made to take time: no other of its series is read."""


class BoundedReads(BytesIO):
    """A file's bytes with a bound of reads that grows with their number: pydicom works in Python for every element,
    item and fragment, and a file can have a million of them that hold nothing. The `num_files` of a series share some
    reads, and those of the `whole` file bound those of its part.
    """

    def __init__(self, content: bytes, path: Path, num_files: int = 1, whole: "BoundedReads | None" = None) -> None:
        super().__init__(content)
        self.path = path
        self.refusal: InputError | None = None  # pydicom puts its own error in this one's place
        self._whole = whole or self
        self._left = MIN_READS // num_files + READS_PER_FILE + len(content) // BYTES_PER_READ
        self._tag = b""

    def read(self, size: int | None = -1, /) -> bytes:
        self._whole._left -= 1
        if size is None or size < 0:  # so pydicom reads a deflated file, and would inflate it without a bound
            self._refuse(f"the transfer syntax {DEFLATED} is not read; decompress it, e.g. with dcmconv")
        elif self._whole._left < 0:
            bound = f"{MIN_READS:,} reads for a series and one for each {BYTES_PER_READ} bytes"
            advice = "leave out its private elements, or write it as NIfTI"
            self._refuse(f"has more elements than a scan of its size needs, {bound}; {advice}")
        elif size > MAX_CHARACTER_SET_BYTES and self._tag in CHARACTER_SET:  # each of its words is looked up at once
            self._refuse(f"SpecificCharacterSet has at most {MAX_CHARACTER_SET_BYTES} bytes, got {size:,}; {AGAIN}")
        content = super().read(size)
        if size == 8:  # the beginning of an element
            self._tag = content[:4]
        return content

    def _refuse(self, reason: str) -> None:
        self._whole.refusal = TooManyElements(f"{self.path}: {reason}")
        raise self._whole.refusal


def drop_long_elements(dataset: "Dataset") -> None:
    """Drop elements without use here whose conversion takes time for each of their bytes.

    Raises ValueError for one of use that is so long.
    """
    from pydicom.datadict import keyword_for_tag

    for raw in list(dataset.elements()):
        if isinstance(raw.value, bytes) and len(raw.value) > MAX_ELEMENT_BYTES:
            if (keyword := keyword_for_tag(raw.tag)) in SHORT_ELEMENTS:
                raise ValueError("a long number")
            if keyword not in LONG_ELEMENTS:
                del dataset[raw.tag]


def items_of(dataset: "FileDataset", holder: "Dataset", keyword: str) -> "list[Dataset]":
    """The items of a sequence of a file's data set, or of one of its items, within the file's bound of reads.

    Returns an empty list where the sequence is missing or empty. Raises ValueError where the element is no sequence.
    """
    from pydicom import Sequence
    from pydicom.dataelem import RawDataElement
    from pydicom.filereader import read_sequence

    element = holder.get_item(keyword) if keyword in holder else None
    if element is None or not element.value:
        return []
    items = element.value
    if isinstance(element, RawDataElement):
        if element.VR not in (None, "SQ", "UN"):
            raise ValueError("no sequence")
        reads = cast(BoundedReads, dataset.buffer)
        part = BoundedReads(element.value, reads.path, whole=reads)
        items = read_sequence(part, element.is_implicit_VR, element.is_little_endian, len(element.value), "iso8859")
    if not isinstance(items, Sequence):
        raise ValueError("no sequence")
    for item in items:
        drop_long_elements(item)
    return list(items)
