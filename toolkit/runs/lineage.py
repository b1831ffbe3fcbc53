"""The model that a training started from."""

import dataclasses
from dataclasses import dataclass

from attunet.fields import Fields


@dataclass(frozen=True)
class Lineage:
    """Origin of a training's first weights.

    Args:
        parent: name of the run or file.
        sha256: of its weights.
        classes: class of the training -> class of the parent that it started from.
        new_classes: classes that started with fresh weights.
        channels: "carried" if the input channels are the parent's, "averaged" if not.
        fresh: names of the tensors that are not the parent's as they were.
    """

    parent: str
    sha256: str
    classes: dict[str, str]
    new_classes: list[str]
    channels: str
    fresh: list[str]

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, at: Fields) -> "Lineage":
        """Read the fields back. Raises InputError naming the field that is wrong."""
        return cls(
            parent=at.text("parent"),
            sha256=at.text("sha256"),
            classes=at.texts("classes"),
            new_classes=at.text_list("new_classes"),
            channels=at.choice("channels", ("carried", "averaged")),
            fresh=at.text_list("fresh"),
        )

    def describe(self) -> str:
        """One line for the log."""
        carried = ", ".join(name if name == parent else f"{name} (from {parent})" for name, parent in self.classes.items())
        new = f"; new: {', '.join(self.new_classes)}" if self.new_classes else ""
        channels = "input channels carried" if self.channels == "carried" else "input channels averaged"
        return f"starting from {self.parent} ({self.sha256[:12]}): {channels}; classes carried: {carried}{new}"
