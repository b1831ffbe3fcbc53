"""Fields of a JSON object that a stranger may have written, each read with its rule."""

import base64
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attunet.errors import InputError

if TYPE_CHECKING:  # the command's help imports this module, and is quick without NumPy
    import numpy as np

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


def array(at: Fields) -> "np.ndarray":
    import numpy as np

    shape = at.get("shape", lambda v: isinstance(v, list) and len(v) == 4 and all(is_count(n) and n for n in v), "four positive integers")
    try:
        data = base64.b64decode(at.get("float32_base64", lambda v: isinstance(v, str), "a text"), validate=True)
    except ValueError as error:
        raise InputError(f"{at.where}: float32_base64 is not base64: {error}") from None
    if len(data) != 4 * math.prod(shape):
        raise InputError(f"{at.where}: float32_base64 must hold {math.prod(shape)} numbers, got {len(data)} bytes")
    return np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)


@dataclass(frozen=True)
class Rule:
    """What a field accepts; `check` returns the value in its final type or raises InputError with the rule in words."""

    kind: type
    text: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    length: int | None = None  # a list of so many numbers
    single: bool = False  # or one number for all of the list
    auto: bool = False

    @property
    def words(self) -> str:
        noun = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}[self.kind]
        if self.choices:
            noun = "one of " + ", ".join(self.choices)
        if self.length and not self.single:
            noun = f"a list of {self.length} numbers"
        if self.low is not None and self.high is not None:
            noun += f" from {self.low:g} to {self.high:g}"
        elif self.low is not None:
            noun += f" of at least {self.low:g}"
        if self.single:
            noun += f", a list of {self.length} such"
        return noun + (' or "auto"' if self.auto else "")

    def check(self, name: str, value: Any) -> Any:
        if self.auto and value == "auto":
            return value
        if self.length and (isinstance(value, list | tuple) or not self.single):
            if isinstance(value, list | tuple) and len(value) == self.length:
                return tuple(dataclasses.replace(self, length=None, single=False, auto=False).check(name, v) for v in value)
        elif self.kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            if self._inside(value):
                return float(value)
        elif type(value) is self.kind and self._inside(value) and (not self.choices or value in self.choices):
            return value
        raise InputError(f"{name}: must be {self.words}, got {value!r}")

    def _inside(self, value: Any) -> bool:
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)
