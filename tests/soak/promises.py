"""How a command has to end, and what the soak tells of the tries of each part."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Result:
    """Tries of one part, and what broke a promise in them."""

    part: str
    subject: str
    tries: int = 0
    finds: list[str] = field(default_factory=list)
    note: str = ""
    seconds: float = 0.0


def complaint(code: int, text: str, allowed: Sequence[int]) -> str:
    """The broken promise in how a command ended: a traceback, another exit code, an error of more than one line;
    empty for none.
    """
    last = text.strip().splitlines()[-1:] or [""]
    if code not in allowed:
        return f"exit code {code}: {' '.join(text.split())[-600:]}"
    if "Traceback" in text or (code != 0 and not last[0].startswith("error: ")):
        return f"not one line of error: {' '.join(text.split())[-600:]}"
    return ""
