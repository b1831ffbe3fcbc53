"""Classes: names, label values in the user's files, colours."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

from attunet.errors import InputError
from attunet.fields import MAX_WHOLE, Fields, Rule, check_name

IGNORE_LABEL = 255  # index in a store's label.npy of pixels that no loss and no metric counts
LABEL_VALUE = Rule(int, -MAX_WHOLE, MAX_WHOLE)  # of a class in files

# Distinguishable on grey and for the common colour-vision deficiencies (Okabe & Ito 2008); background is black.
PALETTE = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")


class ClassRow(TypedDict):
    """A class as JSON."""

    index: int
    name: str
    value: int
    color: str


@dataclass(frozen=True)
class Classes:
    """Classes in index order, background first. Stores, networks and metrics use the indices.

    `values` are those of the classes in the user's own files and in label maps that are written. Raises InputError for
    names or values that are not unique, or too many classes.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.names) <= IGNORE_LABEL:
            raise InputError(
                f"classes: between 2 and {IGNORE_LABEL} with the background are supported, got {len(self.names)}"
            )
        for name in self.names:
            check_name("classes", name)
        if len(set(self.names)) != len(self.names) or len(set(self.values)) != len(self.values):
            raise InputError(
                f"classes: names and values must be unique, got {dict(zip(self.names, self.values, strict=True))}"
            )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def foreground(self) -> tuple[str, ...]:
        return self.names[1:]

    @property
    def colors(self) -> tuple[str, ...]:
        """One `#rrggbb` per class; they repeat after eight foreground classes."""
        wheel = PALETTE[1:]
        return (PALETTE[0], *(wheel[i % len(wheel)] for i in range(len(self.names) - 1)))

    def to_json(self) -> list[ClassRow]:
        return [
            {"index": i, "name": n, "value": v, "color": c}
            for i, (n, v, c) in enumerate(zip(self.names, self.values, self.colors, strict=True))
        ]

    @classmethod
    def from_json(cls, rows: Iterable[Fields]) -> "Classes":
        """Raises InputError for anything that `to_json` would not have written."""
        rows = list(rows)
        read = [(row.text("name"), row.get("value", LABEL_VALUE)) for row in rows]
        try:
            return cls(names=tuple(name for name, _ in read), values=tuple(value for _, value in read))
        except InputError as error:
            raise InputError(f"{rows[0].where}: {error}" if rows else str(error)) from None


CHAOS_MR = Classes(("background", "liver", "right kidney", "left kidney", "spleen"), (0, 1, 2, 3, 4))
