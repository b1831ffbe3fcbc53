"""Integers that a launcher puts into the environment of the processes that it starts."""

import os
from collections.abc import Mapping

from attunet.errors import InputError


def launcher_number(name: str, default: int, *, low: int = 0, environment: Mapping[str, str] = os.environ) -> int:
    """The number in an environment variable, `default` without it. Raises InputError for less than `low`, or no number.

    Example:
        >>> launcher_number("LOCAL_RANK", 0, environment={"LOCAL_RANK": "2"})
        2
    """
    text = environment.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and int(text) >= low):
        raise InputError(f"{name}: must be an integer from {low} to 999999999 in the environment, got {text[:80]!r}")
    return int(text)
