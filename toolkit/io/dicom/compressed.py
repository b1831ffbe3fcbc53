"""Compressed frames of a DICOM file compared with its header before they are decoded, by what their streams say."""

import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from attunet.errors import InputError
from attunet.io.dicom.decode import Request
from attunet.io.dicom.file import RLE
from attunet.io.pictures.jpeg_2000 import START, is_cut_short
from attunet.io.refusal import AGAIN

if TYPE_CHECKING:
    from pydicom import FileDataset

SEQUENTIAL = (0xC0, 0xC1, 0xC3, 0xF7)  # markers of frames: JPEG baseline, extended and lossless, JPEG-LS
END_OF_IMAGE, PADDING = b"\xff\xd9", b"\0\xff"  # of an odd stream; either byte is in use
NEXT_IMAGE = re.compile(rb"\xff\xd9[\0\xff]*?(\xff\x4f\xff\x51|\xff\xd8\xff)")  # an end, and another start


def check_frames(path: Path, dataset: "FileDataset", request: Request) -> None:
    """Raise InputError for compressed frames that are not those of the header, or cut short."""
    from pydicom.encaps import generate_frames

    frames, rows, columns = request.number_of_frames, request.rows, request.columns
    for number, frame in enumerate(generate_frames(dataset.PixelData, number_of_frames=frames)):
        if number >= frames or (_surplus(frame, request) if request.syntax == RLE else NEXT_IMAGE.search(frame)):
            raise InputError(f"{path}: has more pixels than its header names; convert the series again")
        if request.syntax == RLE:  # its decoder takes the size from the header
            continue
        form = form_of(frame)
        if form is None or form[:2] != (rows, columns):
            raise InputError(f"{path}: its compressed frames must have the {rows} × {columns} pixels of the header")
        if form.components != 1 or form.bits > request.bits_allocated:
            got = f"{form.components} components of {form.bits} bits"
            raise InputError(f"{path}: its compressed frames must be grey, of the header's bits, got {got}")
        if is_cut_short(frame) if frame.startswith(START) else not frame.rstrip(PADDING).endswith(END_OF_IMAGE):
            raise InputError(
                f"{path}: its compressed pixels are cut short: tiles, packets or the end are missing; {AGAIN}"
            )
        if form.is_signed and not request.pixel_representation:  # negative values would wrap round
            said = "its compressed pixels have a sign, and PixelRepresentation says that they have none"
            raise InputError(f"{path}: {said}: convert the series again")


def _surplus(frame: bytes, request: Request) -> bool:
    """True where a segment of RLE unpacks to a row or a column more than it should; less is padding."""
    count = request.bits_allocated // 8
    starts = [int.from_bytes(frame[at : at + 4], "little") for at in range(4, 4 + 4 * count, 4)]
    size, row = request.rows * request.columns, max(min(request.rows, request.columns), 2)
    of_the_header = int.from_bytes(frame[:4], "little") == count  # as many segments; others are refused as damaged
    return of_the_header and any(_unpacked(frame[a:b]) - size >= row for a, b in pairwise([*starts, len(frame)]))


def _unpacked(segment: bytes) -> int:
    """Bytes that a segment of RLE unpacks to."""
    at = length = 0
    while at + 1 < len(segment):
        head = segment[at]
        length += head + 1 if head < 128 else 257 - head if head > 128 else 0
        at += head + 2 if head < 128 else 2 if head > 128 else 1
    return length


class Form(NamedTuple):
    """The picture that a compressed stream says it holds."""

    rows: int
    columns: int
    components: int
    bits: int
    is_signed: bool = False


def form_of(frame: bytes) -> Form | None:
    """The form that a JPEG, JPEG-LS or JPEG 2000 stream itself names, by which decoders reserve memory; None where it
    names none that is read, as progressive JPEG, whose frames can be drawn thousands of times.
    """
    if frame.startswith(START) and len(frame) > 42:  # JPEG 2000: the marker SIZ comes second
        width, height, left, top = (int.from_bytes(frame[at : at + 4], "big") for at in range(8, 24, 4))
        return Form(
            height - top, width - left, int.from_bytes(frame[40:42], "big"), (frame[42] & 0x7F) + 1, frame[42] > 0x7F
        )
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in SEQUENTIAL:
            height, width = (int.from_bytes(frame[place : place + 2], "big") for place in (at + 5, at + 7))
            return Form(height, width, frame[at + 9], frame[at + 4])
        at += 1 if marker == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None
