"""The self test in an artefact's metadata: a generated input with the output at export."""

import base64
import math
from dataclasses import dataclass

import numpy as np

from attunet.errors import InputError
from attunet.fields import Fields, JsonObject, Rule

MAX_TEXT = 64 * 2**20  # characters of an array


@dataclass(frozen=True, eq=False)
class SelfTest:
    """A generated input with the artefact's output at export, computed on the CPU."""

    slices: np.ndarray  # float32 `(1, in_channels, h, w)`
    logits: np.ndarray  # float32 `(1, K, h / stride, w / stride)`, every `stride`-th row and column of the output
    stride: int
    tolerance: float  # largest root mean square of the difference, as a fraction of the root mean square of `logits`

    def to_json(self) -> JsonObject:
        arrays = {"slices": _array_json(self.slices), "logits": _array_json(self.logits)}
        return {**arrays, "stride": self.stride, "tolerance": self.tolerance}

    @classmethod
    def from_json(cls, at: Fields) -> "SelfTest":
        """Raises InputError naming the field, for a value that `to_json` cannot have written."""
        tolerance = at.require("tolerance", lambda v: isinstance(v, float) and 0 < v < 1, "a number between 0 and 1")
        stride = at.whole("stride", 1)
        return cls(_array(at.inner("slices")), _array(at.inner("logits")), stride, tolerance)


def _array_json(array: np.ndarray) -> JsonObject:
    return {
        "shape": list(array.shape),
        "float32_base64": base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode(),
    }


def _array(at: Fields) -> np.ndarray:
    shape = at.get("shape", Rule(int, 1, 2**31, length=4))
    try:
        data = base64.b64decode(at.text("float32_base64", MAX_TEXT), validate=True)
    except ValueError as error:
        raise InputError(f"{at.name('float32_base64')}: is not base64: {error}") from None
    if len(data) != 4 * math.prod(shape):
        raise InputError(f"{at.name('float32_base64')}: must hold {math.prod(shape)} numbers, got {len(data)} bytes")
    return np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)
