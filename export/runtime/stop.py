"""A running graph that another thread can end."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stop:
    """Ends a call from another thread: the graph that runs stops at its next node, and the call raises RunError."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.is_set = False
        self._actions: list[Callable[[], object]] = []

    def set(self) -> None:
        """End the call, now or as soon as it begins; may be called several times and from any thread."""
        with self._lock:
            self.is_set = True
            for action in self._actions:
                action()

    @contextmanager
    def calling(self, action: Callable[[], object]) -> Iterator[None]:
        """While the context is open, `set` calls `action`, which must return at once; now if it is set already."""
        with self._lock:
            self._actions.append(action)
            if self.is_set:
                action()
        try:
            yield
        finally:
            with self._lock:
                self._actions.remove(action)
