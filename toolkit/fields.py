"""The validator of fields in configurations and in JSON files; its errors name field, rule and value."""

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeGuard, TypeVar

from attunet.errors import InputError

Read = TypeVar("Read")
JsonObject = dict[str, object]  # its values are numbers, texts, booleans, null, lists and objects

MAX_WHOLE = 2**53  # integers above it are not exact in JSON
MAX_NUMBER = 1e300
MAX_SHOWN_BITS = 256
MAX_TEXT = 200
MAX_PATH = 4096


@dataclass(frozen=True)
class Rule:
    """The values that a field accepts."""

    kind: type[int] | type[float] | type[bool] | type[str]  # type of the value, or of each element of a list
    low: float | None = None  # bounds of numbers, both allowed
    high: float | None = None
    choices: tuple[str, ...] = ()  # the texts that are accepted
    noun: str = ""  # a noun phrase for the value, where the one made of the other arguments would be long
    multiple_of: int = 1  # an integer must be a multiple of this one
    odd: bool = False  # an integer must be odd
    length: int | None = None  # the value is a list of this many elements
    single: bool = False  # with `length`, one element for all of the list is accepted as well
    rising: bool = False  # with `length` 2, the first element must be below the second
    ordered: bool = False  # with `length` 2, the first element must not be above the second
    auto: bool = False  # the text "auto" is accepted as well
    null: bool = False  # None is accepted as well

    @property
    def words(self) -> str:
        """The rule as a noun phrase for documentation and error messages."""
        noun = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}[self.kind]
        if self.odd:
            noun = "an odd integer"
        if self.multiple_of > 1:
            noun = f"a multiple of {self.multiple_of}"
        if self.choices:
            noun = self.noun or "one of " + ", ".join(self.choices)
        if self.length and not self.single:
            order = "rising " if self.rising else "ascending " if self.ordered else ""
            noun = f"a list of {self.length} {order}numbers"
        if self.low is not None and self.high is not None:
            noun += f" from {self.low:g} to {self.high:g}"
        elif self.low is not None:
            noun += f" of at least {self.low:g}"
        if self.single:
            noun += f", a list of {self.length} such"
        return noun + (' or "auto"' if self.auto else "") + (" or null" if self.null else "")

    def check(self, name: str, value: object) -> Any:
        """The value in its final type (lists as tuples, numbers as float); raises InputError, which names `name`."""
        if (self.null and value is None) or (self.auto and value == "auto"):
            return value
        if self.length and (isinstance(value, list | tuple) or not self.single):
            if isinstance(value, list | tuple) and len(value) == self.length:
                checked = tuple(self._element.check(name, v) for v in value)
                is_falling = (self.rising and checked[0] >= checked[1]) or (self.ordered and checked[0] > checked[1])
                if not is_falling:
                    return checked
        elif self.kind is float:
            if is_number(value, *self._bounds):
                return float(value)
        elif type(value) is self.kind and self._is_allowed(value):
            return value
        raise InputError(f"{name}: must be {self.words}, got {shown(value)}")

    @cached_property
    def _element(self) -> "Rule":
        return dataclasses.replace(self, length=None, single=False, rising=False, auto=False, null=False)

    @property
    def _bounds(self) -> tuple[float, float]:
        return (-MAX_NUMBER if self.low is None else self.low), (MAX_NUMBER if self.high is None else self.high)

    def _is_allowed(self, value: object) -> bool:
        """True for a text, a truth value or an integer that the rule accepts."""
        if isinstance(value, str):
            return value in self.choices if self.choices else len(value) <= MAX_PATH and is_utf8(value)
        if not is_number(value, *self._bounds):
            return isinstance(value, bool)
        return value % self.multiple_of == 0 and (not self.odd or value % 2 == 1)


class Fields:
    """The fields of a JSON object.

    Args:
        data: the parsed object.
        where: file that begins every error.
        path: fields that lead to the object inside the file, each followed by a dot.

    Raises InputError if `data` is no object; each method raises it for a field that is missing or breaks the method's
    rule.
    """

    def __init__(self, data: object, where: str, path: str = "") -> None:
        if not isinstance(data, dict):
            raise InputError(f"{where}: {path.rstrip('.') + ': ' if path else ''}must be an object, got {shown(data)}")
        self.data: dict[str, object] = data
        self.where, self.path = where, path

    def __contains__(self, key: str) -> bool:
        return key in self.data

    def name(self, key: str) -> str:
        """The file and the field, as errors name them."""
        return f"{self.where}: {self.path}{key}"

    def require(self, key: str, holds: Callable[[object], bool], words: str) -> Any:
        """The field as it is, which must satisfy `holds`; words: the rule as a noun phrase."""
        value = self._value(key)
        if not holds(value):
            raise InputError(f"{self.name(key)}: must be {words}, got {shown(value)}")
        return value

    def get(self, key: str, rule: Rule) -> Any:
        """The field in the type that `Rule.check` gives it."""
        return rule.check(self.name(key), self._value(key))

    def text(self, key: str, max_length: int = MAX_TEXT) -> str:
        return str(self.require(key, lambda v: isinstance(v, str) and 0 < len(v) <= max_length, "a text"))

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        return str(self.get(key, Rule(str, choices=choices)))

    def whole(self, key: str, low: int = 0) -> int:
        return int(self.get(key, Rule(int, low, MAX_WHOLE)))

    def flag(self, key: str) -> bool:
        return bool(self.get(key, Rule(bool)))

    def texts(self, key: str) -> dict[str, str]:
        return dict(self.require(key, lambda v: isinstance(v, dict) and _are_texts(v.values()), "an object of texts"))

    def text_list(self, key: str) -> list[str]:
        return list(self.require(key, is_text_list, "a list of texts"))

    def values(self, key: str, length: int | None = None) -> list[object]:
        """The elements of a list of this length; None: of any."""
        words = f"a list of {length}" if length else "a list"
        return list(self.require(key, lambda v: isinstance(v, list) and length in (None, len(v)), words))

    def each(self, key: str, rule: Rule, length: int | None = None) -> tuple[Any, ...]:
        """The elements of a list of this length (None: of any), each in the type that `Rule.check` gives it."""
        return tuple(rule.check(self.name(key), value) for value in self.values(key, length))

    def inner(self, key: str) -> "Fields":
        return Fields(self._value(key), self.where, f"{self.path}{key}.")

    def optional(self, key: str, read: Callable[["Fields"], Read]) -> Read | None:
        """The object of a field as `read` gives it; None where the field is missing or null."""
        return None if self.data.get(key) is None else read(self.inner(key))

    def rows(self, key: str) -> Iterator["Fields"]:
        """The objects of a list."""
        for number, row in enumerate(self.values(key)):
            yield Fields(row, self.where, f"{self.path}{key}[{number}].")

    def optional_rows(self, key: str, read: Callable[["Fields"], Read], length: int | None = None) -> list[Read | None]:
        """The elements of a list of objects and nulls, the objects as `read` gives them."""
        rows = Fields({f"{key}[{n}]": row for n, row in enumerate(self.values(key, length))}, self.where, self.path)
        return [rows.optional(name, read) for name in rows.data]

    def spans(self, key: str, length: int | None = None) -> tuple[tuple[float, float], ...]:
        """A list of pairs of numbers, the first of each at most the second."""
        return self.each(key, Rule(float, length=2, ordered=True), length)

    def _value(self, key: str) -> object:
        if key not in self.data:
            raise InputError(f"{self.name(key)}: the field is missing")
        return self.data[key]


def parse_json(text: str | bytes, *, strict: bool = False) -> Any:
    """The value of a JSON text. Raises ValueError for any other text, for one that is nested too deeply, for an object
    with a name twice, which programs read in two ways, and with `strict` for NaN and infinity.
    """
    try:
        return json.loads(text, object_pairs_hook=_names_once, parse_constant=_refuse if strict else None)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _names_once(pairs: list[tuple[str, object]]) -> JsonObject:
    data = dict(pairs)
    if len(data) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"has the name {twice[:60]!r} twice in an object")
    return data


def read_json(path: str | Path) -> Fields:
    """The object in a JSON file. Raises InputError for a file that cannot be read or holds anything else."""
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(f"{path}: must be a regular file; reading a pipe or a device might never end")
    try:
        data = parse_json(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as JSON: {str(error)[:MAX_TEXT]}") from None
    return Fields(data, str(path))


def is_text_list(value: object) -> bool:
    """True for a list of texts."""
    return isinstance(value, list) and _are_texts(value)


def check_name(what: str, name: str) -> None:
    """Raise InputError for a name that no file of a model could hold: one of a file may be longer, or not UTF-8."""
    if not 0 < len(name) <= MAX_TEXT or not is_utf8(name):
        raise InputError(f"{what}: a name must be a text of 1 to {MAX_TEXT} characters in UTF-8, got {shown(name)}")


def is_utf8(text: str) -> bool:
    """False for a text with half of a letter, which JSON can have, or with a byte of a file's name that is no UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def is_file_name(value: object) -> bool:
    """True for a name that leads to no other folder, and that a file can have."""
    try:
        is_possible = isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # half of a letter, which JSON can have
        return False
    return is_possible and value not in ("", ".", "..") and Path(str(value)).name == value


def parse_whole(text: str) -> int | None:
    """The whole number that a text has in digits; None for any other text, and for more than 15 digits."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 15 else None


def is_whole(value: object) -> bool:
    """True for an integer of at least 0 that is exact in JSON."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_WHOLE


def is_number(value: object, low: float = -MAX_NUMBER, high: float = MAX_NUMBER) -> TypeGuard[float]:
    """True for a finite number from `low` to `high`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def shown(value: object) -> str:
    """A value for an error's one line: short, and safe for a value that is nested deeply."""
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    if isinstance(value, list | tuple) and (len(value) > 4 or not all(map(is_number, value))):
        return f"a list of {len(value)}"
    if isinstance(value, int) and value.bit_length() > MAX_SHOWN_BITS:  # Python writes no more than 4,300 digits
        return f"an integer of {value.bit_length():,} bits"
    return repr(list(value) if isinstance(value, tuple) else value)[:80]


def _are_texts(values: Iterable[object]) -> bool:
    return all(isinstance(v, str) and len(v) <= MAX_PATH for v in values)
