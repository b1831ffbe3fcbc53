"""Slices of several requests in one batch, for devices that are faster with larger batches."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from attunet.volumes.predict import slices_in_batch

MAX_SLICES = 32
STEP = 8  # batches are filled up to a multiple, or to as many as fit, so that a device sees few shapes


@dataclass(eq=False)
class _Item:
    names: tuple[str, ...]
    slices: np.ndarray
    outputs: "Future[list[np.ndarray]]" = field(default_factory=Future)

    def fits(self, other: "_Item") -> bool:
        return self.names == other.names and self.slices.shape[1:] == other.slices.shape[1:]


class SharedBatches:
    """`Segmenter.run` for many threads: the one that gets the device runs its own slices and those that wait with the
    same height, width and outputs in one batch, up to `MAX_SLICES`, or fewer where they are large.
    """

    def __init__(self, network: Callable[[tuple[str, ...], np.ndarray], list[np.ndarray]]) -> None:
        self._network = network
        self._device, self._access = threading.Lock(), threading.Lock()
        self._waiting: deque[_Item] = deque()

    def run(self, names: tuple[str, ...], slices: np.ndarray) -> list[np.ndarray]:
        """As `Segmenter.run`, perhaps in one batch with the slices of other threads."""
        item = _Item(names, slices)
        with self._access:
            self._waiting.append(item)
        with self._device:
            if not item.outputs.done():
                self._run(self._take(item))
        return item.outputs.result()

    def _take(self, own: _Item) -> list[_Item]:
        """The thread's own slices and others that fit beside them, the oldest first."""
        taken, count, limit = [own], len(own.slices), slices_in_batch(own.slices.shape[2:], MAX_SLICES)
        with self._access:
            self._waiting.remove(own)
            for item in list(self._waiting):
                if item.fits(own) and count + len(item.slices) <= limit:
                    self._waiting.remove(item)
                    taken.append(item)
                    count += len(item.slices)
        return taken

    def _run(self, items: list[_Item]) -> None:
        count = sum(len(item.slices) for item in items)
        room = slices_in_batch(items[0].slices.shape[2:], MAX_SLICES) - count
        filling = [items[-1].slices[-1:]] * min(-count % STEP, room)
        try:
            slices = np.concatenate([*(item.slices for item in items), *filling])
            outputs = self._network(items[0].names, slices)
        except Exception as error:
            for item in items:
                item.outputs.set_exception(error)
            return
        start = 0
        for item in items:
            item.outputs.set_result([array[start : start + len(item.slices)] for array in outputs])
            start += len(item.slices)
