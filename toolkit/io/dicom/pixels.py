"""Pixels of one DICOM file behind checks of their size: grey frames, compressed or not, as their header means them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attunet.decisions import Choices, Decision, choice
from attunet.errors import InputError
from attunet.io.dicom.compressed import check_frames
from attunet.io.dicom.decode import DECODER, DecodingError, Request, pixels_of
from attunet.io.dicom.file import BIG_ENDIAN, RLE, UNCOMPRESSED, syntax_of
from attunet.io.reading import MAX_VOXELS
from attunet.io.refusal import AGAIN

if TYPE_CHECKING:
    from pydicom import FileDataset

MAX_SIDE = 2**15
MAX_RLE_RATIO = 64  # pixels by compressed bytes: RLE repeats a byte 128 times at most, which takes two
MAX_RATIO, SMALL_BYTES = 1000, 2**26  # of a series in other forms, beyond pixels that harm nobody: black packs well
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOURED = ("PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420")
QUANTITATIVE = ("CT", "PT")  # modalities whose values have a unit, whatever is white on a screen


def room_of(files: Sequence[Path]) -> int:
    """Bytes of pixels that the files of a series may hold together."""
    return SMALL_BYTES + MAX_RATIO * sum(file.stat().st_size for file in files)


def frames_of(
    path: Path, dataset: "FileDataset", choices: Choices, room: int
) -> tuple[np.ndarray, tuple[Decision, ...]]:
    """The stored values `(frames, rows, columns)` of a grey image, and the decisions.

    Compressed pixels may unpack to the bytes of `room`, what `room_of` leaves to this file. Raises InputError for
    colour, too many pixels, or pixel data that is cut short or of another size than the header says.
    """
    request = _request(path, dataset)
    kind = f"{'i' if request.pixel_representation else 'u'}{request.bits_allocated // 8}"
    if request.syntax in UNCOMPRESSED:
        content = _checked_content(path, dataset, request)
        stored = np.frombuffer(content, f"{'>' if request.syntax == BIG_ENDIAN else '<'}{kind}").astype(kind)
    else:
        stored = _decoded(path, dataset, request, room).astype(kind)
    stored = stored.reshape(request.number_of_frames, request.rows, request.columns)
    return _meant(path, dataset, request, stored, choices)


def _request(path: Path, dataset: "FileDataset") -> Request:
    """The pixels by the header. Raises InputError for such as are not read."""
    rows, columns, bits = int(dataset.Rows), int(dataset.Columns), int(dataset.BitsAllocated)
    frames, samples = int(dataset.get("NumberOfFrames") or 1), int(dataset.get("SamplesPerPixel", 1))
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2")).strip()
    if photometric not in GREY or samples != 1:
        named = photometric if photometric in (*COLOURED, *GREY) else "another photometric interpretation"
        what = f"a colour image ({named}, {samples} samples a pixel)"
        raise InputError(f"{path}: is {what}, which is not read: leave it out, or write pictures as PNG")
    if not (1 <= rows <= MAX_SIDE and 1 <= columns <= MAX_SIDE and frames >= 1) or bits not in (8, 16, 32):
        raise InputError(
            f"{path}: must be grey frames of 8, 16 or 32 bits and at most {MAX_SIDE} pixels a side, "
            f"got {frames} × {rows} × {columns} of {bits} bits"
        )
    if frames * rows * columns > MAX_VOXELS:
        said = f"the header says {frames * rows * columns:,}"
        raise InputError(f"{path}: at most {MAX_VOXELS:,} voxels are supported, {said}")
    signed = int(dataset.get("PixelRepresentation", 0))
    if signed not in (0, 1):
        raise InputError(f"{path}: PixelRepresentation must be 0 or 1, got {signed}; convert the series again")
    if "ModalityLUTSequence" in dataset:
        reason = "its values mean what a table says (ModalityLUTSequence), which is not read"
        raise InputError(f"{path}: {reason}: convert the series with it applied")
    stored = int(dataset.get("BitsStored") or bits)
    return Request(syntax_of(dataset), rows, columns, frames, bits, stored, signed, photometric)


def _checked_content(path: Path, dataset: "FileDataset", request: Request) -> bytes:
    """Uncompressed pixels. Raises InputError where they are not as many as the header says, or swapped in words."""
    from pydicom.dataelem import RawDataElement

    element = dataset.get_item("PixelData")
    announced = element.length if isinstance(element, RawDataElement) else 0
    content: bytes = dataset.PixelData
    present, needed, row = len(content), request.num_bytes, request.columns * request.bits_allocated // 8
    said = f"its pixels need {needed:,} bytes, the file has {present:,}"
    if present < needed or announced > present:  # as where damage has put a length into the pixels
        raise InputError(f"{path}: is cut short: {said}; {AGAIN}")
    if present - needed >= max(row, 2):  # beyond padding
        raise InputError(f"{path}: has more pixels than its header names: {said}; convert the series again")
    if request.syntax == BIG_ENDIAN and request.bits_allocated == 8 and dataset["PixelData"].VR == "OW":
        advice = "convert it to Little Endian, e.g. with dcmconv +te"
        raise InputError(f"{path}: has pixels of 8 bits in words of Big Endian, which are not read: {advice}")
    return content[:needed]


def _decoded(path: Path, dataset: "FileDataset", request: Request, room: int) -> np.ndarray:
    from pydicom.pixels import get_decoder

    size, content = request.num_bytes, len(dataset.PixelData)
    limit = MAX_RLE_RATIO * content if request.syntax == RLE else room
    if size > limit:
        said = f"its header says {size:,} bytes of pixels, and {content:,} compressed bytes are there"
        raise InputError(f"{path}: {said}, which may hold {max(limit, 0):,} of its series: is it cut short? {AGAIN}")
    check_frames(path, dataset, request)
    if not get_decoder(request.syntax).is_available:
        missing = "needs a decoder that is not installed: pip install 'attunet[dicom]'"
        raise InputError(f"{path}: {request.syntax} {missing}")
    if request.syntax == RLE:  # in Python
        return pixels_of(request, dataset.PixelData)
    try:
        return DECODER.decode(request, dataset.PixelData)
    except DecodingError as error:
        reason = f"cannot be decoded ({error}); is it damaged? {AGAIN}, or decompress it, e.g. with gdcmconv --raw"
        raise InputError(f"{path}: its compressed pixels {reason}") from None


def _meant(
    path: Path, dataset: "FileDataset", request: Request, stored: np.ndarray, choices: Choices
) -> tuple[np.ndarray, tuple[Decision, ...]]:
    """Values as BitsStored and HighBit say, turned where the lowest value is white; with the decisions."""
    decisions = []
    allocated, bits = request.bits_allocated, request.bits_stored
    high = int(dataset.get("HighBit", bits - 1))
    if choice("dicom-bits", choices) == "stored":
        if not (1 <= bits <= allocated and bits - 1 <= high < allocated):
            said = f"BitsStored {bits} and HighBit {high} do not fit {allocated} bits"
            raise InputError(f"{path}: {said}; where all bits are values: --read dicom-bits=allocated")
        values = (stored << (allocated - 1 - high)) >> (allocated - bits)
        beyond = (values != stored) & (stored >> high >> 1 != 0)  # for uncompressed pixels, overlays may be there
        if beyond.any() and request.syntax not in (*UNCOMPRESSED, RLE):
            said = f"its compressed pixels have more than the {bits} bits that BitsStored says"
            raise InputError(f"{path}: {said}; where all bits are values: --read dicom-bits=allocated")
        if (values != stored).any():
            text = f"{bits} of {allocated} bits are values, as BitsStored and HighBit say"
            decisions.append(Decision("dicom-bits", text))
        stored, allocated = values, bits
    if request.photometric_interpretation == "MONOCHROME1":
        reading, modality = choice("monochrome1", choices), str(dataset.get("Modality")).strip()
        inverted = reading == "inverted" or (reading == "auto" and modality not in QUANTITATIVE)
        text = "values are inverted, so that bright is high" if inverted else "values stay as stored"
        decisions.append(Decision("monochrome1", text))
        if inverted:  # within the bits that are values
            stored = ~stored if stored.dtype.kind == "i" else stored ^ stored.dtype.type(2**allocated - 1)
    return stored, tuple(decisions)
