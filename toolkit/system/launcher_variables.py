"""Integers that a launcher puts into the environment of the processes that it starts."""

import os

from attunet.errors import InputError


def launcher_number(name: str, default: int, *, low: int = 0) -> int:
    """The number in an environment variable, `default` without it; InputError for less than `low`, or no number."""
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and int(text) >= low):
        raise InputError(f"{name}: must be an integer from {low} to 999999999 in the environment, got {text[:80]!r}")
    return int(text)
