"""Signs of life of the processes of a training: they tell the process that is gone when a collective fails."""

import os
import socket
import threading
import time
from contextlib import suppress
from datetime import timedelta
from types import TracebackType

import torch
import torch.distributed as distributed

from attunet.errors import RunError

BEAT_S = 2.0
STORE_TIMEOUT = timedelta(seconds=10)


class Heartbeat:
    """A counter in the launcher's key-value store, raised every few seconds while entered; nothing for one process.

    The error of a failed collective does not name the process that caused it. When the context ends with such an error,
    the counters of the other processes are read twice, and the error becomes a RunError that names the processes whose
    counter has not changed.

    Args:
        timeout_minutes: time after which a collective between the processes fails.
    """

    def __init__(self, timeout_minutes: float) -> None:
        self._several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
        if self._several:
            # A group on the host, so that the collective of every step does not wait for the device.
            self._group = distributed.new_group(backend="gloo", timeout=timedelta(minutes=timeout_minutes))
            self._store = distributed.PrefixStore("beats", distributed.distributed_c10d._get_default_store())  # type: ignore[attr-defined]
            self._rank, self._world = distributed.get_rank(), distributed.get_world_size()
            self._left = threading.Event()

    def __enter__(self) -> "Heartbeat":
        if self._several:
            self._write(0)
            threading.Thread(target=self._beat, name="beat", daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._several:
            return
        missing = self._missing() if isinstance(error, RuntimeError) and not isinstance(error, RunError) else ""
        self._left.set()
        if missing:
            raise RunError(
                f"{missing}; this process (rank {self._rank}) gives up: {str(error).strip().splitlines()[0]}"
            ) from error

    def largest(self, value: int) -> int:
        """Return the maximum over the values that all processes pass in the same step."""
        if not self._several:
            return value
        shared = torch.tensor(value)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX, group=self._group)
        return int(shared)

    def _write(self, count: int) -> None:
        self._store.set(str(self._rank), f"{count} process {os.getpid()} on {socket.gethostname()}")

    def _beat(self) -> None:
        count = 0
        with suppress(RuntimeError):  # the store is gone: the training fails elsewhere
            while not self._left.wait(BEAT_S):
                count += 1
                self._write(count)

    def _missing(self) -> str:
        """Describe the processes whose counter does not change; "" when all are alive."""
        self._store.set_timeout(STORE_TIMEOUT)
        try:
            before = self._read()
            time.sleep(2.5 * BEAT_S)
            after = self._read()
        except RuntimeError:
            return "the machine of rank 0, where the processes meet, cannot be reached"
        silent = [rank for rank, beat in after.items() if beat == before[rank] and rank != self._rank]
        names = ", ".join(f"rank {rank} ({after[rank].partition(' ')[2]})" for rank in silent)
        return f"no sign of life from {names}" if silent else ""

    def _read(self) -> dict[int, str]:
        return {rank: self._store.get(str(rank)).decode() for rank in range(self._world)}
