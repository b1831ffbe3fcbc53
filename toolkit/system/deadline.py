"""An end of work that lasts long: whoever starts it sets a check, and readers call it between two files."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CHECK: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)


@contextmanager
def ended_by(check: Callable[[], None]) -> Iterator[None]:
    """Context of work that ends with the exception that `check` raises, a server's at the end of a request's time."""
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


def check_end() -> None:
    """Raise what the check of the context raises; nothing where none is set."""
    if check := _CHECK.get():
        check()
