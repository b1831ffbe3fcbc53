"""A limit on the size of files, as a full disk is for a test."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def file_limit(size: int | None) -> Iterator[None]:
    """No file of this process, or of one that it starts, grows beyond `size` bytes; None for no limit. The signal is
    ignored as Python does from its start, whatever a library has made of it since.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
