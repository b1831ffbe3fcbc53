"""The base of a configuration's sections, whose fields have a type, a default, a documentation and bounds."""

import dataclasses
from dataclasses import dataclass, field
from functools import cache
from types import UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from attunet.fields import Rule

Auto = Literal["auto"]
Value = TypeVar("Value")


def setting(default: Value, text: str, low: float | None = None, high: float | None = None, **rule: Any) -> Value:
    """A field with its documentation and the arguments of its `Rule` that its annotation does not say.

    Example:
        >>> epochs: float | Auto = setting("auto", "Passes over the training slices.", low=0.1)  # doctest: +SKIP
    """
    return field(default=default, metadata={"text": text, "rule": {"low": low, "high": high, **rule}})


@dataclass(frozen=True)
class Section:
    """A section of the configuration; checks every field when it is made."""

    NAME: ClassVar[str]

    def __post_init__(self) -> None:
        for name, rule in self.rules().items():
            object.__setattr__(self, name, rule.check(f"{self.NAME}.{name}", getattr(self, name)))

    @classmethod
    @cache
    def rules(cls) -> dict[str, Rule]:
        return {f.name: _rule(f.type, f.metadata["rule"]) for f in dataclasses.fields(cls)}


def _rule(annotation: object, limits: dict[str, Any]) -> Rule:
    """The rule of a type: a union of a plain one, a tuple of it, and texts, of which "auto" is no choice."""
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    texts = [text for option in options if get_origin(option) is Literal for text in get_args(option)]
    lists = [get_args(option) for option in options if get_origin(option) is tuple]
    plain = [option for option in options if get_origin(option) is None]
    derived = {
        "kind": plain[0] if plain else lists[0][0] if lists else str,
        "choices": tuple(text for text in texts if text != "auto"),
        "auto": "auto" in texts,
        "length": len(lists[0]) if lists else None,
        "single": bool(lists and plain),
    }
    return Rule(**{**derived, **limits})
