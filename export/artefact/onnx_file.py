"""Checks of an `.onnx` file's bytes, before an inference library reads them.

This code reads the protobuf wire format itself: the `onnx` package does the same, but adds 31 MB to an installation
that only predicts.
Sources: protobuf.dev/programming-guides/encoding for the format, onnx.proto for the field numbers.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from attunet.errors import InputError

MAX_BYTES = 2**31 - 1  # protobuf's own limit for one message
# Number of a field; readers in C++ cut longer ones off, and would see another field than this code does
MAX_NUMBER = 2**29 - 1
MAX_DEPTH = 24  # messages within messages; attunet's own files need 4
MAX_FIELDS = 2**20  # of all messages that are read here: a network has some thousands
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

IR_VERSION, GRAPH, METADATA = 1, 7, 14  # ModelProto
NAME, EXTERNAL_DATA, DATA_LOCATION = 8, 13, 14  # TensorProto
OP_TYPE, DOMAIN = 4, 7  # NodeProto

# Fields that can contain operators or tensors: message -> field number -> message.
CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", METADATA: "entry", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
}
REFUSED = {
    "sparse": "sparse tensors are not taken: they unpack to more than the file holds",
    "training": "graphs of a training are not taken",
    "function": "functions are not taken: they unpack to more than the file holds",
}


class Field(NamedTuple):
    """One field of a message: `value` if it is a varint, else the bytes from `start` to `end`."""

    number: int
    wire: int
    value: int
    start: int
    end: int


class _Malformed(Exception):
    """The bytes are no protobuf message; callers raise an InputError that names the file."""


def read_bytes(path: Path) -> bytes:
    """Content of a file. Raises InputError if it cannot be read, is empty or exceeds `MAX_BYTES`."""
    try:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise InputError(f"{path}: a model file must have at most {MAX_BYTES} bytes, got {size}")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if not data:
        raise InputError(f"{path}: the file is empty")
    return data


def check_file(data: bytes, key: str, where: str) -> tuple[list[tuple[int, int]], set[tuple[str, str]]]:
    """Check a serialised ONNX model: start and end of each metadata value with the key, and domain and name of each
    operator, those of subgraphs too. Raises InputError for bytes that are no ONNX model, are truncated, or refer to
    tensors in other files.
    """
    walk = _Walk(data, key.encode())
    try:
        walk.visit("model", 0, len(data), 0)
    except _Malformed as error:
        raise InputError(f"{where}: is not an ONNX model, or truncated: {error}") from None
    if not walk.numbers >= {IR_VERSION, GRAPH}:
        raise InputError(f"{where}: is not an ONNX model: it has no version or no graph")
    if walk.external:
        raise InputError(f"{where}: must contain its weights, but the tensor {walk.external!r} refers to another file")
    return walk.metadata, walk.operators


def with_metadata(model: bytes, key: str, value: bytes) -> bytes:
    """The serialised model with one metadata entry appended; the fields of a protobuf message may have any order."""
    return model + _bytes_field(METADATA, _bytes_field(1, key.encode()) + _bytes_field(2, value))


def _bytes_field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _fields(data: bytes, at: int, end: int) -> Iterator[Field]:
    while at < end:
        tag, at = _read_varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        value = 0
        start = at
        if wire == VARINT:
            value, at = _read_varint(data, at, end)
        elif wire == BYTES:
            length, start = _read_varint(data, at, end)
            at = start + length
        elif wire in (FIXED64, FIXED32):
            at += 8 if wire == FIXED64 else 4
        else:
            raise _Malformed(f"unknown wire type {wire} before byte {at}")
        if not 0 < number <= MAX_NUMBER:
            raise _Malformed(f"a field with the number {number} before byte {start}")
        if at > end:
            raise _Malformed(f"field {number} before byte {start} needs {at - start} bytes, {end - start} are left")
        yield Field(number, wire, value, start, at)


def _read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise _Malformed(f"a number is cut off at byte {at}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _Malformed(f"a number of more than 64 bits before byte {at}")


class _Walk:
    """One way through the messages of a model; `visit` raises _Malformed."""

    def __init__(self, data: bytes, key: bytes) -> None:
        self._data, self._key, self._left = data, key, MAX_FIELDS
        self.numbers: set[int] = set()  # of the model's own fields
        self.metadata: list[tuple[int, int]] = []
        self.operators: set[tuple[str, str]] = set()
        self.external = ""  # name of the first tensor with data in another file

    def visit(self, message: str, start: int, end: int, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise _Malformed(f"messages are nested deeper than {MAX_DEPTH}")
        if message in REFUSED:
            raise _Malformed(REFUSED[message])
        children, own, is_external = CHILDREN.get(message, {}), dict[int, Field](), False
        for field in _fields(self._data, start, end):
            self._left -= 1
            if self._left < 0:
                raise _Malformed(f"it has more than {MAX_FIELDS:,} fields")
            if child := children.get(field.number):
                if field.wire != BYTES:
                    raise _Malformed(f"field {field.number} of a {message} must be a message")
                self.visit(child, field.start, field.end, depth + 1)
            if message == "model":
                self.numbers.add(field.number)
            elif message == "tensor" and field.number in (EXTERNAL_DATA, DATA_LOCATION):
                is_external = is_external or field.number == EXTERNAL_DATA or field.value > 0
            elif field.wire == BYTES:
                own[field.number] = field  # the last one counts
        if is_external:
            self.external = self.external or self._text(own.get(NAME))[:100] or "without a name"
        elif message == "node":
            self.operators.add((self._text(own.get(DOMAIN)), self._text(own.get(OP_TYPE))))
        elif message == "entry" and {1, 2} <= set(own) and self._data[own[1].start : own[1].end] == self._key:
            self.metadata.append((own[2].start, own[2].end))

    def _text(self, field: Field | None) -> str:
        return "" if field is None else self._data[field.start : field.end].decode("utf-8", "replace")
