"""The model that a training started from."""

import dataclasses
from dataclasses import dataclass, field

from attunet.fields import Fields


@dataclass(frozen=True)
class Lineage:
    """Origin of a training's first weights.

    Args:
        parent: name of the run or file.
        sha256: of its weights.
        classes: class of the training -> class of the parent that it started from.
        new_classes: classes that started with fresh weights.
        channels: "carried" if the first convolution is the parent's, "matched" if some of its channels are, by name,
            else "averaged".
        fresh: names of the tensors that are not the parent's as they were.
        channel_names: channel of the training -> channel of the parent with the same name.
    """

    parent: str
    sha256: str
    classes: dict[str, str]
    new_classes: list[str]
    channels: str
    fresh: list[str]
    channel_names: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, at: Fields) -> "Lineage":
        """Raises InputError naming the field that is wrong."""
        return cls(
            parent=at.text("parent"),
            sha256=at.text("sha256"),
            classes=at.texts("classes"),
            new_classes=at.text_list("new_classes"),
            channels=at.choice("channels", ("carried", "matched", "averaged")),
            fresh=at.text_list("fresh"),
            channel_names=at.texts("channel_names"),
        )

    def describe(self) -> str:
        pairs = self.classes.items()
        carried = ", ".join(name if name == parent else f"{name} (from {parent})" for name, parent in pairs)
        new = f"; new: {', '.join(self.new_classes)}" if self.new_classes else ""
        channels = f"input channels {self.channels}"
        if self.channels == "matched":
            channels = f"input channels matched by name: {', '.join(self.channel_names)}, others averaged"
        elif self.channels == "carried":
            channels += " by name" if self.channel_names else " in their order, since their names are not known"
        return f"starting from {self.parent} ({self.sha256[:12]}): {channels}; classes carried: {carried}{new}"
