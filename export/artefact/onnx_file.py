"""Checks of an `.onnx` file's bytes, before an inference library reads them.

A file that is truncated, no ONNX model or refers to other files is refused with an InputError, whatever its bytes are.
This code reads the protobuf wire format itself: the `onnx` package does the same, but adds 31 MB to an installation
that only predicts.
Sources: protobuf.dev/programming-guides/encoding for the format, onnx.proto for the field numbers.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from attunet.errors import InputError

MAX_BYTES = 2**31 - 1  # protobuf's own limit for one message
MAX_NUMBER = (
    2**29 - 1
)  # of a field; readers in C++ cut longer ones off, and would see another field than this code does
MAX_DEPTH = 24  # messages within messages; attunet's own files need 4
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# Fields of a ModelProto that can contain tensors: message -> field number -> message.
CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
}
IR_VERSION, GRAPH, METADATA = 1, 7, 14  # ModelProto
NAME, EXTERNAL_DATA, DATA_LOCATION = 8, 13, 14  # TensorProto
OP_TYPE, DOMAIN = 4, 7  # NodeProto


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


def find_metadata(data: bytes, key: str, where: str) -> list[tuple[int, int]]:
    """Positions of the metadata entries with this key in a serialised ONNX model.

    Args:
        where: the file's name, for messages.

    Returns:
        Start and end of each entry's value in `data`.

    Raises:
        InputError: for bytes that are no ONNX model, are truncated, or refer to tensors in other files.
    """
    try:
        fields = list(_fields(data, 0, len(data)))
        if not {IR_VERSION, GRAPH} <= {f.number for f in fields}:
            raise InputError(f"{where}: is not an ONNX model: it has no version or no graph")
        if name := _external_tensor(data, 0, len(data), "model", 0):
            raise InputError(f"{where}: must contain its weights, but the tensor {name!r} refers to another file")
        entries = [list(_fields(data, f.start, f.end)) for f in fields if f.number == METADATA and f.wire == BYTES]
    except _Malformed as error:
        raise InputError(f"{where}: is not an ONNX model, or truncated: {error}") from None
    spans = []
    for entry in entries:
        parts = {f.number: (f.start, f.end) for f in entry if f.wire == BYTES}
        if {1, 2} <= set(parts) and data[slice(*parts[1])] == key.encode():
            spans.append(parts[2])
    return spans


def operators_of(data: bytes) -> set[tuple[str, str]]:
    """Domain and name of the operators of a serialised ONNX model that `find_metadata` has checked, those of subgraphs
    and functions too.
    """
    operators: set[tuple[str, str]] = set()
    waiting = [("model", 0, len(data))]
    while waiting:
        message, start, end = waiting.pop()
        fields = list(_fields(data, start, end))
        if message == "node":
            texts = {f.number: data[f.start : f.end].decode("utf-8", "replace") for f in fields if f.wire == BYTES}
            operators.add((texts.get(DOMAIN, ""), texts.get(OP_TYPE, "")))
        children = CHILDREN[message]
        waiting += [
            (child, f.start, f.end)
            for f in fields
            if (child := children.get(f.number)) is not None and child not in ("tensor", "sparse")
        ]
    return operators


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


def _external_tensor(data: bytes, start: int, end: int, message: str, depth: int) -> str | None:
    """Name of the first tensor with data in another file, None if there is none."""
    if depth > MAX_DEPTH:
        raise _Malformed(f"messages are nested deeper than {MAX_DEPTH}")
    if message == "sparse":
        raise _Malformed("sparse tensors are not taken: they unpack to more than the file holds")
    if message == "tensor":
        return _name_if_external(list(_fields(data, start, end)), data)
    for field in _fields(data, start, end):
        if child := CHILDREN[message].get(field.number):
            if field.wire != BYTES:
                raise _Malformed(f"field {field.number} of a {message} must be a message")
            if name := _external_tensor(data, field.start, field.end, child, depth + 1):
                return name
    return None


def _name_if_external(tensor: list[Field], data: bytes) -> str | None:
    if not any(f.number == EXTERNAL_DATA or (f.number == DATA_LOCATION and f.value) for f in tensor):
        return None
    names = [data[f.start : f.end][:100] for f in tensor if f.number == NAME and f.wire == BYTES]
    return names[0].decode("utf-8", "replace") if names and names[0] else "without a name"
