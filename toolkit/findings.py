"""What looks wrong with a data set: each finding names the case, the rule and the figure."""

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """case: None where it concerns the whole data set. text: one line for a person."""

    case: str | None
    rule: str
    figure: float
    level: Literal["warning", "error"]
    text: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        return f"{self.level}: {self.case + ': ' if self.case else ''}{self.text} [{self.rule}]"
