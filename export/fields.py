"""Fields of a JSON object that a stranger may have written, each read with its rule."""

import base64
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from attunet.errors import InputError

MULTIPLE = 16  # of which heights and widths are multiples


class Fields:
    """Fields of a JSON object, each with its rule; InputError names the field, the rule and the value."""

    def __init__(self, data: dict[str, Any], where: str) -> None:
        self.data, self.where = data, where

    def get(self, key: str, holds: Callable[[Any], bool], rule: str) -> Any:
        if key not in self.data:
            raise InputError(f"{self.where}: the metadata lack the field {key!r}")
        if not holds(self.data[key]):
            raise InputError(f"{self.where}: {key} must be {rule}, got {shown(self.data[key])}")
        return self.data[key]

    def text(self, key: str) -> str:
        return str(self.get(key, lambda v: isinstance(v, str) and 0 < len(v) < 200, "a text"))

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        return str(self.get(key, lambda v: isinstance(v, str) and v in choices, "one of " + ", ".join(choices)))

    def whole(self, key: str) -> int:
        return int(self.get(key, is_count, "an integer of at least 0"))

    def mapping(self, key: str) -> dict[str, Any]:
        return dict(self.get(key, lambda v: isinstance(v, dict), "an object"))

    def texts(self, key: str) -> dict[str, str]:
        return dict(self.get(key, lambda v: isinstance(v, dict) and all(isinstance(x, str) for x in v.values()), "an object of texts"))

    def rows(self, key: str) -> list[dict[str, Any]]:
        return list(self.get(key, lambda v: isinstance(v, list) and all(isinstance(x, dict) for x in v), "a list of objects"))

    def inner(self, key: str) -> "Fields":
        return Fields(self.mapping(key), f"{self.where}: {key}")


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def is_side(value: Any) -> bool:
    return value is None or (is_count(value) and 0 < value <= 65536 and value % MULTIPLE == 0)


def shown(value: Any) -> str:
    """A value for an error's one line: short, and safe for a value that is nested deeply."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return repr(value)[:80]


def array(at: Fields) -> np.ndarray:
    shape = at.get("shape", lambda v: isinstance(v, list) and len(v) == 4 and all(is_count(n) and n for n in v), "four positive integers")
    try:
        data = base64.b64decode(at.get("float32_base64", lambda v: isinstance(v, str), "a text"), validate=True)
    except ValueError as error:
        raise InputError(f"{at.where}: float32_base64 is not base64: {error}") from None
    if len(data) != 4 * math.prod(shape):
        raise InputError(f"{at.where}: float32_base64 must hold {math.prod(shape)} numbers, got {len(data)} bytes")
    return np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)
