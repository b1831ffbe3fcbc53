"""The arrays that a training reads, compared with the hashes of their store while it trains."""

import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

from accelerate import Accelerator
from accelerate.utils import gather_object

from attunet.errors import InputError, one_line
from attunet.store import Store
from attunet.store_damage import verify_case

LOWEST_PRIORITY = 19


class Verification:
    """Compares the arrays of cases with their SHA-256 in a thread, each process its share, while the steps go on.

    Reading all arrays first would keep a training of terabytes waiting for hours. So a changed array ends the training
    as soon as it is seen, and at the latest before the last checkpoint.
    """

    def __init__(self, store: Store, cases: Sequence[str], accelerator: Accelerator) -> None:
        self._store, self._cases = store, cases[accelerator.process_index :: accelerator.num_processes]
        self._error = ""
        self._is_stopped = False
        self._thread = threading.Thread(target=self._work, name="verification", daemon=True)

    def __enter__(self) -> "Verification":
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_stopped = True
        self._thread.join()

    def check(self) -> None:
        """Raise InputError if this process has seen a changed array; never waits."""
        if self._error:
            raise InputError(self._error)

    def finish(self) -> None:
        """Wait until every process has read its share. Raises InputError in all of them if an array was changed."""
        self._thread.join()
        for error in gather_object([self._error]):
            if error:
                raise InputError(error)

    def _work(self) -> None:
        try:
            self._verify()
        except InputError as error:
            self._error = str(error)
        except Exception as error:  # whatever ends this thread, not all arrays were read
            self._error = f"{self._store.path}: its arrays cannot be compared with their SHA-256: {one_line(error)}"

    def _verify(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own
            with suppress(OSError):  # of a sandbox that lets nobody change it
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
        for case in self._cases:
            if self._is_stopped:
                return
            verify_case(self._store, case)
