"""A running graph that another thread can end."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stop:
    """Ends a call from another thread: the graph that runs stops at its next node, and the call raises RunError.

    Example:
        >>> stop = Stop()
        >>> threading.Timer(60, stop.set).start()  # doctest: +SKIP
        >>> segmenter.predict_prepared(prepared, stop=stop)  # doctest: +SKIP
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._actions: list[Callable[[], object]] = []

    @property
    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        """End the call, now or as soon as it begins; may be called several times and from any thread."""
        with self._lock:
            self._is_set = True
            for action in self._actions:
                action()

    @contextmanager
    def calling(self, action: Callable[[], object]) -> Iterator[None]:
        """While the context is open, `set` calls `action`, which must return at once; now if it is set already."""
        with self._lock:
            self._actions.append(action)
            if self._is_set:
                action()
        try:
            yield
        finally:
            with self._lock:
                self._actions.remove(action)
