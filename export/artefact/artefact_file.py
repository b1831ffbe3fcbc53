"""The file of an artefact: checked before a library gets its bytes, and written with a hash of all of them."""

import hashlib
import json
import re
from pathlib import Path

from attunet.errors import InputError
from attunet.export.artefact.artefact import SCHEMA, Artefact
from attunet.export.artefact.onnx_file import check_file, read_bytes, with_metadata
from attunet.fields import Fields, JsonObject, parse_json, shown

KEY = "attunet"
NO_HASH = "0" * 64  # in place of the hash while the hash is computed
MAX_METADATA_BYTES = 64 * 2**20
# Operators whose number of steps or size of output is a value in the graph: a file of a kilobyte computes for ever
OF_WHOLE = ("Loop", "Range")  # graphs of whole volumes go through the slices in a loop
UNBOUNDED = {
    *OF_WHOLE,
    *("Scan", "SequenceMap", "If", "ConstantOfShape", "Expand", "Tile", "OneHot", "EyeLike"),
    *("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"),
}


def read_artefact(path: Path) -> Artefact:
    """Metadata of the artefact at `path`. Raises InputError with the reason for a file that this version cannot run."""
    return load_artefact(path)[0]


def load_artefact(path: Path) -> tuple[Artefact, bytes]:
    """Metadata and content of the artefact at `path`, the bytes that were checked; errors as of `read_artefact`."""
    data = read_bytes(Path(path))
    where = str(path)
    spans, operators = check_file(data, KEY, where)
    if not spans:
        raise InputError(f"{where}: is an ONNX model that attunet did not export: it has no metadata {KEY!r}")
    if len(spans) > 1:
        raise InputError(f"{where}: the metadata {KEY!r} must occur once, got {len(spans)} of them")
    start, end = spans[0]
    if end - start > MAX_METADATA_BYTES:
        raise InputError(f"{where}: the metadata {KEY!r} must be at most {MAX_METADATA_BYTES} bytes, got {end - start}")
    values = _parse(data[start:end], where)
    schema = Fields(values, where).whole("schema", 1)
    if schema > SCHEMA:
        raise InputError(
            f"{where}: its metadata have schema {schema}, this attunet reads up to {SCHEMA}: a newer attunet is needed"
        )
    _check_hash(data, start, end, values, where)
    artefact = Artefact.from_json(values, where)
    _check_operators(operators, where, whole=artefact.whole)
    return artefact, data


def write_artefact(model: bytes, artefact: Artefact) -> bytes:
    """Content of an artefact's file: the serialised model and the metadata, whose `sha256` covers every byte."""
    text = json.dumps(
        {**artefact.to_json(), "sha256": NO_HASH}, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    data = with_metadata(model, KEY, text.encode())
    return data.replace(_hash_text(NO_HASH), _hash_text(hashlib.sha256(data).hexdigest()), 1)


def _hash_text(digest: str) -> bytes:
    return f'"sha256":"{digest}"'.encode()


def _parse(text: bytes, where: str) -> JsonObject:
    try:
        values = parse_json(text.decode(), strict=True)
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON may have it
        raise InputError(f"{where}: the metadata {KEY!r} must be text that UTF-8 can write") from None
    except ValueError as error:
        raise InputError(f"{where}: the metadata {KEY!r} are not JSON: {str(error)[:120]}") from None
    if not isinstance(values, dict):
        raise InputError(f"{where}: the metadata {KEY!r} must be an object, got a {type(values).__name__}")
    return values


def _check_operators(operators: set[tuple[str, str]], where: str, *, whole: bool) -> None:
    """Raises InputError for operators that are not ONNX's own, or that bring their own amount of work."""
    for domain, name in sorted(operators):
        if domain not in ("", "ai.onnx"):
            raise InputError(f"{where}: must have operators of ONNX alone, got {shown(name)} of {shown(domain)}")
        if name in UNBOUNDED and not (whole and name in OF_WHOLE):
            raise InputError(
                f"{where}: the operator {name} is not taken: what it computes does not follow from the size of a scan"
            )


def _check_hash(data: bytes, start: int, end: int, values: JsonObject, where: str) -> None:
    digest = values.get("sha256")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise InputError(f"{where}: the metadata's sha256 must be 64 hexadecimal digits, got {shown(digest)}")
    at = data.rfind(_hash_text(digest), start, end)
    if at < 0:
        raise InputError(f'{where}: the metadata must hold "sha256":"..." without blanks')
    at += len('"sha256":"')
    actual = hashlib.sha256(data[:at])
    actual.update(NO_HASH.encode())
    actual.update(memoryview(data)[at + 64 :])
    if actual.hexdigest() != digest:
        raise InputError(
            f"{where}: was damaged or changed after the export: the SHA-256 of its content is not the one in its "
            "metadata"
        )
