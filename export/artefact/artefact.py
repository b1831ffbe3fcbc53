"""What an artefact says about itself: one metadata key, `attunet`, with a versioned JSON. `docs/artefact.md` is its description.

A file is trusted only when it is whole (`sha256` in the JSON covers every byte of it), says what the runtime needs, and is not newer than
this reader. All of that is checked before an inference session sees the bytes; only InputError comes out.
"""

import base64
import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from attunet.classes import Classes
from attunet.errors import InputError
from attunet.export.artefact.onnx_file import find_metadata, read_bytes, with_metadata
from attunet.fields import MULTIPLE, Fields, array, is_count, is_side, shown
from attunet.volumes.spec import UNTOUCHED, Postprocessing, PreprocessSpec
from attunet.volumes.training_ranges import TrainingRanges

KEY = "attunet"
SCHEMA = 2  # 1 had no `erosion_mm`, which it would leave undone
PRECISIONS = ("fp32", "fp16", "int8")
NO_HASH = "0" * 64  # stands for the hash while the hash is taken
MAX_METADATA_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Golden:
    """A generated input and what the artefact made of it when it was written, on the CPU.

    slices: `(1, in_channels, h, w)` float32. logits: `(1, K, h / stride, w / stride)` float32, every `stride`-th row and column.
    tolerance: root mean square of the difference allowed, as a share of the logits' own.
    """

    slices: np.ndarray
    logits: np.ndarray
    stride: int
    tolerance: float


@dataclass(frozen=True)
class Artefact:
    """The metadata. Height and width are None where any multiple of 16 may be given.

    ranges: what the cases of the data set span, to be compared with an input.
    outputs: names of the graph's outputs; `labels` and `logits`, and on request `probabilities`, `attention_0` (the deepest gate), ...
    num_members: networks whose mean probabilities the graph gives; 1 where it is no ensemble.
    training_cases: case name -> SHA-256 of its image, of the cases that the weights have seen.
    dice_at_export: {"cases": "held out" or "training", "artefact": mean, "checkpoint": mean, "per_class": {name: v},
        "per_case": {case: {name: v}}}, on the native grid, of the foreground classes; null where a class is in neither label map.
    """

    name: str
    precision: str
    spec: PreprocessSpec
    classes: Classes
    num_parameters: int
    ranges: TrainingRanges | None = None
    outputs: tuple[str, ...] = ("labels", "logits")
    height: int | None = None
    width: int | None = None
    postprocessing: Postprocessing = UNTOUCHED
    training_cases: dict[str, str] = field(default_factory=dict)
    fold: int | str = "all"
    step: int = 0
    num_members: int = 1
    license: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    dice_at_export: dict[str, Any] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    golden: Golden | None = None

    @property
    def attention_outputs(self) -> tuple[str, ...]:
        return tuple(name for name in self.outputs if name.startswith("attention_"))

    def to_json(self) -> dict[str, Any]:
        side = {"height": self.height, "width": self.width, "multiple_of": MULTIPLE}
        return {
            "schema": SCHEMA,
            "name": self.name,
            "precision": self.precision,
            "preprocessing": self.spec.to_json(),
            "classes": self.classes.to_json(),
            "input": {"name": "slices", "dtype": "float32", "layout": "NCHW", "channels": self.spec.in_channels, **side},
            "outputs": [_output_json(name, len(self.classes)) for name in self.outputs],
            "postprocessing": asdict(self.postprocessing),
            "num_parameters": self.num_parameters,
            "ranges": self.ranges and self.ranges.to_json(),
            "training": {
                "cases": self.training_cases,
                "fold": self.fold,
                "step": self.step,
                "num_members": self.num_members,
                "license": self.license,
            },
            "config": self.config,
            "dice_at_export": self.dice_at_export,
            "tools": self.tools,
            "golden": _golden_json(self.golden),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any], where: str) -> "Artefact":
        """Raises InputError naming the field for anything that `to_json` would not have written."""
        at = Fields(data, where)
        side, training = at.inner("input"), at.inner("training")
        return cls(
            name=at.text("name"),
            precision=at.choice("precision", PRECISIONS),
            spec=_spec(at),
            classes=_classes(at),
            num_parameters=at.whole("num_parameters"),
            ranges=_ranges(at),
            outputs=_outputs(at),
            height=side.get("height", is_side, "a multiple of 16 or null"),
            width=side.get("width", is_side, "a multiple of 16 or null"),
            postprocessing=_postprocessing(at.inner("postprocessing")),
            training_cases=training.texts("cases"),
            fold=training.get("fold", lambda v: v == "all" or is_count(v), "a fold's number or all"),
            step=training.whole("step"),
            num_members=training.whole("num_members") if "num_members" in training.data else 1,
            license=training.get("license", lambda v: v is None or isinstance(v, str), "a text or null"),
            config=at.mapping("config"),
            dice_at_export=_dice(at),
            tools=at.texts("tools"),
            golden=_golden(at.inner("golden")),
        )


def read_artefact(path: Path) -> Artefact:
    """The metadata of an artefact; InputError with the reason if the file is not one that this version can run."""
    return load_artefact(path)[0]


def load_artefact(path: Path) -> tuple[Artefact, bytes]:
    """The metadata and the very bytes that were checked, so that what runs is what was read."""
    data = read_bytes(Path(path))
    where = str(path)
    spans = find_metadata(data, KEY, where)
    if not spans:
        raise InputError(f"{where}: an ONNX model, but not one that attunet exported: it has no metadata {KEY!r}")
    if len(spans) > 1:
        raise InputError(f"{where}: the metadata {KEY!r} must occur once, found {len(spans)}")
    start, end = spans[0]
    if end - start > MAX_METADATA_BYTES:
        raise InputError(f"{where}: the metadata {KEY!r} must be at most {MAX_METADATA_BYTES} bytes, got {end - start}")
    values = _parse(data[start:end], where)
    _check_schema(values, where)
    _check_hash(data, start, end, values, where)
    return Artefact.from_json(values, where), data


def write_artefact(model: bytes, artefact: Artefact) -> bytes:
    """The artefact's file: the serialised ONNX model with the metadata appended and every byte of it hashed."""
    text = json.dumps({**artefact.to_json(), "sha256": NO_HASH}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    data = with_metadata(model, KEY, text.encode())
    return data.replace(_hash_text(NO_HASH), _hash_text(hashlib.sha256(data).hexdigest()), 1)


def _hash_text(digest: str) -> bytes:
    return f'"sha256":"{digest}"'.encode()


def _parse(text: bytes, where: str) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    try:
        values = json.loads(text.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: the metadata {KEY!r} are not JSON: {str(error)[:120]}") from None
    if not isinstance(values, dict):
        raise InputError(f"{where}: the metadata {KEY!r} must be an object, got a {type(values).__name__}")
    return values


def _check_schema(values: dict[str, Any], where: str) -> None:
    schema = Fields(values, where).get("schema", lambda v: is_count(v) and v > 0, "an integer of at least 1")
    if schema > SCHEMA:
        raise InputError(f"{where}: its metadata have schema {schema}, this attunet reads up to {SCHEMA}: a newer attunet is needed")


def _check_hash(data: bytes, start: int, end: int, values: dict[str, Any], where: str) -> None:
    digest = values.get("sha256")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise InputError(f"{where}: the metadata's sha256 must be 64 hexadecimal digits, got {shown(digest)}")
    at = data.rfind(_hash_text(digest), start, end)
    if at < 0:
        raise InputError(f'{where}: the metadata must hold "sha256":"..." without blanks')
    at += len('"sha256":"')
    found = hashlib.sha256(data[:at])
    found.update(NO_HASH.encode())
    found.update(memoryview(data)[at + 64 :])
    if found.hexdigest() != digest:
        raise InputError(f"{where}: damaged or changed after the export: its content has another SHA-256 than its metadata say")


def _spec(at: Fields) -> PreprocessSpec:
    try:
        return PreprocessSpec.from_json(at.mapping("preprocessing"))
    except InputError as error:
        raise InputError(f"{at.where}: {error}") from None


def _postprocessing(at: Fields) -> Postprocessing:
    largest = at.get("largest_component", lambda v: isinstance(v, bool), "true or false")
    if "erosion_mm" not in at.data:  # schema 1
        return Postprocessing(largest)
    return Postprocessing(largest, float(at.get("erosion_mm", _is_erosion, "a number from 0 to 100")))


def _is_erosion(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100


def _classes(at: Fields) -> Classes:
    rows = at.rows("classes")
    for i, row in enumerate(rows):
        one = Fields(row, f"{at.where}: classes[{i}]")
        one.text("name")
        one.get("value", lambda v: is_count(abs(v)) if isinstance(v, int) else False, "an integer")
    try:
        return Classes.from_json(rows)
    except InputError as error:
        raise InputError(f"{at.where}: {error}") from None


def _ranges(at: Fields) -> TrainingRanges | None:
    """None in artefacts that were written before there were any."""
    found = at.data.get("ranges")
    return None if found is None else TrainingRanges.from_json(found, at.where)


def _output_json(name: str, num_classes: int) -> dict[str, Any]:
    shape: dict[str, tuple[str, list[Any]]] = {
        "labels": ("uint8", ["batch", "height", "width"]),
        "logits": ("float32", ["batch", num_classes, "height", "width"]),
        "probabilities": ("float32", ["batch", num_classes, "height", "width"]),
    }
    dtype, axes = shape.get(name, ("float32", ["batch", 1, f"height of {name}", f"width of {name}"]))
    return {"name": name, "dtype": dtype, "shape": axes}


def _outputs(at: Fields) -> tuple[str, ...]:
    names = tuple(Fields(row, f"{at.where}: outputs[{i}]").text("name") for i, row in enumerate(at.rows("outputs")))
    if "logits" not in names or len(set(names)) < len(names):
        raise InputError(f"{at.where}: outputs must be different and have logits among them, got {list(names)[:9]}")
    return names


def _dice(at: Fields) -> dict[str, Any]:
    def score(value: Any) -> bool:
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1)

    def scores(value: Any) -> bool:
        return isinstance(value, dict) and all(score(v) for v in value.values())

    dice = at.mapping("dice_at_export")
    if dice:
        inner = Fields(dice, f"{at.where}: dice_at_export")
        inner.choice("cases", ("held out", "training"))
        inner.get("artefact", score, "a number from 0 to 1 or null")
        inner.get("checkpoint", score, "a number from 0 to 1 or null")
        inner.get("per_class", scores, "an object of numbers from 0 to 1")
        inner.get("per_case", lambda v: isinstance(v, dict) and all(scores(c) for c in v.values()), "numbers from 0 to 1 by case and class")
    return dice


def _golden_json(golden: Golden | None) -> dict[str, Any]:
    if golden is None:
        return {}
    arrays = {"slices": _array_json(golden.slices), "logits": _array_json(golden.logits)}
    return {**arrays, "stride": golden.stride, "tolerance": golden.tolerance}


def _array_json(array: np.ndarray) -> dict[str, Any]:
    return {"shape": list(array.shape), "float32_base64": base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()}


def _golden(at: Fields) -> Golden | None:
    if not at.data:
        return None
    tolerance = at.get("tolerance", lambda v: isinstance(v, float) and 0 < v < 1, "a number between 0 and 1")
    stride = at.get("stride", lambda v: is_count(v) and v > 0, "an integer of at least 1")
    return Golden(array(at.inner("slices")), array(at.inner("logits")), stride, tolerance)
