"""Requests and answers of the Open Inference Protocol: tensors as JSON, or as bytes behind it."""

import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attunet.errors import InputError
from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.graph_tensors import DATATYPES, Tensor
from attunet.export.serve.refusal import TOO_LARGE, Refusal
from attunet.export.serve.settings import MB
from attunet.fields import Fields, Rule, parse_json

MAX_JSON_BYTES = 16 * MB  # numbers as text take up to twenty times their size in memory
MAX_JSON_NUMBERS = 4_000_000  # in an answer
MAX_JSON_WORDS = 4096  # objects and quotes: a request has some dozen
ROW_BYTES = 32  # of 16 numbers, the shortest row of a slice
COUNT = re.compile(r"[0-9]{1,18}")
WINDOW_BITS = {"gzip": 31, "deflate": 15}
DTYPES = {datatype: np.dtype(name).newbyteorder("<") for name, datatype in DATATYPES.items()}


@dataclass(frozen=True, eq=False)
class InferenceRequest:
    """A parsed request. outputs: True for those that are requested as bytes."""

    id: str | None
    inputs: dict[str, np.ndarray]
    outputs: dict[str, bool]


def inflate(body: Path, encoding: str, max_mb: int) -> Path:
    """The body without its content encoding. Raises Refusal: 415 for an unknown encoding, 413 once it is too large."""
    if encoding in ("", "identity"):
        return body
    if encoding not in WINDOW_BITS:
        raise Refusal(415, f"Content-Encoding: must be gzip or deflate, got {encoding[:40]!r}")
    inflater, size, plain = zlib.decompressobj(WINDOW_BITS[encoding]), 0, body.with_name("inflated")
    try:
        with body.open("rb") as file, plain.open("xb") as out:
            while chunk := inflater.unconsumed_tail or file.read(2**16):
                part = inflater.decompress(chunk, 2**20)
                size += len(part)
                if size > max_mb * MB:
                    raise Refusal(TOO_LARGE, f"body: at most {max_mb} MB are accepted after inflating")
                out.write(part)
                if inflater.eof:
                    break
    except zlib.error as error:
        raise Refusal(400, f"body: is no {encoding}: {error}") from None
    if not inflater.eof:
        raise Refusal(400, f"body: its {encoding} is cut short")
    return plain


def read_request(body: Path, json_bytes: str | None, about: Artefact) -> InferenceRequest:
    """Read a request for an artefact from a file. `json_bytes` is the header Inference-Header-Content-Length; None
    where all of the body is JSON. Raises InputError, and Refusal with 413 for JSON that is too large.
    """
    size = body.stat().st_size
    if json_bytes is not None and not (COUNT.fullmatch(json_bytes) and int(json_bytes) <= size):
        raise InputError(
            f"Inference-Header-Content-Length: must be a number up to the body's {size} bytes, got {json_bytes[:40]!r}"
        )
    length = size if json_bytes is None else int(json_bytes)
    if length > MAX_JSON_BYTES:
        raise Refusal(
            TOO_LARGE, f"body: at most {MAX_JSON_BYTES // MB} MB of JSON are accepted; send tensors as binary data"
        )
    with body.open("rb") as file:
        fields = _parse(file.read(length))
    tensors = _tensors(fields, body, length)
    specs = {spec.name: spec for spec in about.inputs}
    if set(tensors) != set(specs):
        raise InputError(f"inputs: must be {', '.join(specs)}, got {', '.join(tensors) or 'none'}"[:300])
    arrays = {name: _checked(*tensors[name], spec) for name, spec in specs.items()}
    identity = fields.get("id", Rule(str, null=True)) if "id" in fields else None
    return InferenceRequest(identity, arrays, _outputs(fields, about.outputs))


def write_answer(model: str, request: InferenceRequest, results: Mapping[str, np.ndarray]) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON where bytes follow."""
    rows, parts = [], []
    for name, as_bytes in request.outputs.items():
        array = results[name]
        datatype = DATATYPES[array.dtype.name]
        row: dict[str, object] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if as_bytes:
            parts.append(np.ascontiguousarray(array, DTYPES[datatype]).tobytes())
            row["parameters"] = {"binary_data_size": len(parts[-1])}
        elif array.size > MAX_JSON_NUMBERS:
            raise Refusal(
                TOO_LARGE,
                f"outputs: {name} has {array.size:,} numbers, at most {MAX_JSON_NUMBERS:,} fit in JSON; ask for bytes",
            )
        else:
            row["data"] = array.ravel().tolist()
        rows.append(row)
    about = {"model_name": model, "model_version": "1", **({"id": request.id} if request.id is not None else {})}
    text = json.dumps({**about, "outputs": rows}, allow_nan=False, separators=(",", ":")).encode()
    return b"".join([text, *parts]), len(text) if parts else None


def _parse(text: bytes) -> Fields:
    words, lists = text.count(b"{") + text.count(b'"'), text.count(b"[")
    if words > MAX_JSON_WORDS or lists > MAX_JSON_WORDS + len(text) // ROW_BYTES:  # parsing them would stop the others
        raise InputError(
            f"body: is JSON of {words:,} objects and quotes and {lists:,} lists; at most {MAX_JSON_WORDS:,} and a list "
            f"for each {ROW_BYTES} bytes are accepted"
        )
    try:
        values = parse_json(text.decode(), strict=True)
    except ValueError as error:
        raise InputError(f"body: is not JSON: {str(error)[:120]}") from None
    return Fields(values, "body")


def _tensors(fields: Fields, body: Path, start: int) -> dict[str, tuple[str, tuple[int, ...], object]]:
    """Type, shape and data (of JSON, or an array that is mapped from bytes) of the request's tensors, by name."""
    size, tensors = body.stat().st_size, dict[str, tuple[str, tuple[int, ...], object]]()
    for row in fields.rows("inputs"):
        name, datatype = row.text("name"), row.choice("datatype", tuple(DTYPES))
        if name in tensors:
            raise InputError(f"{row.name('name')}: {name[:80]!r} is there twice")
        shape = tuple(row.require("shape", _is_shape, "a list of at most 8 numbers above 0"))
        data, parameters = row.data.get("data"), _parameters(row)
        if parameters.data.get("binary_data_size") is not None:
            count = parameters.whole("binary_data_size")
            if "data" in row or start + count > size:
                rule = "must be the length of bytes in the body, without data"
                raise InputError(f"{parameters.name('binary_data_size')}: {rule}, got {count}")
            if count != math.prod(shape) * DTYPES[datatype].itemsize:
                raise InputError(f"{row.name('shape')}: {datatype} of {list(shape)} does not have {count} bytes")
            data = np.memmap(body, DTYPES[datatype], "r", offset=start, shape=shape)
            start += count
        tensors[name] = (datatype, shape, data)
    if start != size:
        raise InputError(f"body: {size - start} bytes follow that belong to no tensor")
    return tensors


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and len(value) <= 8 and all(type(side) is int and 0 < side < 2**31 for side in value)


def _parameters(row: Fields) -> Fields:
    parameters = row.inner("parameters") if "parameters" in row else Fields({}, row.where)
    for name in ("shared_memory_region", "classification"):
        if name in parameters:
            raise InputError(f"{parameters.name(name)}: is not supported")
    return parameters


def _checked(datatype: str, shape: tuple[int, ...], data: object, spec: Tensor) -> np.ndarray:
    if datatype != spec.datatype:
        raise InputError(f"inputs: {spec.name} must be {spec.datatype}, got {datatype}")
    sides = zip(shape, spec.shape, strict=False)
    if len(shape) != len(spec.shape) or not all(expected in (-1, side) for side, expected in sides):
        raise InputError(f"inputs: {spec.name} must have the shape {list(spec.shape)} (-1: any), got {list(shape)}")
    array = np.array(data) if isinstance(data, np.ndarray) else _from_json(data, shape, spec)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"inputs: {spec.name} must be finite numbers")
    return array


def _from_json(data: object, shape: tuple[int, ...], spec: Tensor) -> np.ndarray:
    array = np.asarray(None)
    with suppress(ValueError):  # nested too deeply
        array = np.asarray(data, object)  # a pointer for each: a long text would make all of them as long
    are_numbers = isinstance(data, list) and set(map(type, array.flat)) <= {int, float}
    if not are_numbers or array.size != math.prod(shape):
        raise InputError(f"inputs: data of {spec.name} must be {math.prod(shape)} numbers in a list")
    if array.ndim > 1 and array.shape != shape:
        rule = f"must be flat or nested as its shape {list(shape)}"
        raise InputError(f"inputs: data of {spec.name} {rule}, got {array.shape}")
    with np.errstate(over="ignore"), suppress(OverflowError):
        return array.astype(DTYPES[spec.datatype]).reshape(shape)
    raise InputError(f"inputs: {spec.name} must be finite numbers")


def _outputs(fields: Fields, known: Sequence[str]) -> dict[str, bool]:
    """The requested outputs (all where none is named), True for those that are requested as bytes."""
    all_binary = _parameters(fields).data.get("binary_data_output") is True
    if fields.data.get("outputs") in (None, []):
        return dict.fromkeys(known, all_binary)
    return {
        row.choice("name", tuple(known)): _parameters(row).data.get("binary_data", all_binary) is True
        for row in fields.rows("outputs")
    }
