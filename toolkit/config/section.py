"""The base of a configuration's sections, whose fields have a default, a rule and a documentation."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from attunet.fields import Rule

Auto = Literal["auto"]
Value = TypeVar("Value")


def setting(
    default: Value,
    text: str,
    kind: type[int] | type[float] | type[bool] | type[str],
    low: float | None = None,
    high: float | None = None,
    **rule: Any,
) -> Value:
    """A field with its documentation and the arguments of its `Rule`; "auto" is accepted where it is the default.

    Example:
        >>> epochs: float = setting(10.0, "Passes over the training slices.", float, low=0.1)  # doctest: +SKIP
    """
    made = Rule(kind, low, high, auto=default == "auto", **rule)
    return field(default=default, metadata={"rule": made, "text": text})


@dataclass(frozen=True)
class Section:
    """A section of the configuration; checks every field when it is made."""

    NAME: ClassVar[str]

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, f.metadata["rule"].check(f"{self.NAME}.{f.name}", getattr(self, f.name)))
