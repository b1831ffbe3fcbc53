"""Slices of several requests in one batch, for devices that are faster with larger batches."""

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from attunet.volumes.predict import Network

MAX_SLICES = 32
STEP = 8  # batches are filled up to a multiple, so that a device sees few shapes


@dataclass(eq=False)
class _Item:
    slices: np.ndarray
    logits: "Future[np.ndarray]" = field(default_factory=Future)


class SharedBatches:
    """A network for many threads, which runs the slices that wait while the device is busy in one batch.

    The thread that gets the device runs its own slices and those of others with the same height and width, up to
    `max_slices`. No thread waits for a batch to fill.
    """

    def __init__(self, network: Network, *, max_slices: int = MAX_SLICES) -> None:
        self._network, self._max_slices = network, max_slices
        self._device, self._access = threading.Lock(), threading.Lock()
        self._waiting: deque[_Item] = deque()

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        item = _Item(slices)
        with self._access:
            self._waiting.append(item)
        with self._device:
            if not item.logits.done():
                self._run(self._take(item))
        return item.logits.result()

    def _take(self, own: _Item) -> list[_Item]:
        """The thread's own slices and others that fit beside them, the oldest first."""
        taken, count = [own], len(own.slices)
        with self._access:
            self._waiting.remove(own)
            for item in list(self._waiting):
                if item.slices.shape[1:] == own.slices.shape[1:] and count + len(item.slices) <= self._max_slices:
                    self._waiting.remove(item)
                    taken.append(item)
                    count += len(item.slices)
        return taken

    def _run(self, items: list[_Item]) -> None:
        count = sum(len(item.slices) for item in items)
        filling = [items[-1].slices[-1:]] * (-count % STEP)
        try:
            logits = self._network(np.concatenate([*(item.slices for item in items), *filling]))
        except Exception as error:
            for item in items:
                item.logits.set_exception(error)
            return
        start = 0
        for item in items:
            item.logits.set_result(logits[start : start + len(item.slices)])
            start += len(item.slices)
