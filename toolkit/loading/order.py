"""The order in which a training draws slices: a pure function of the seed and the position in the training.

Each epoch is a permutation of all samples; the epochs one after the other form an endless stream of positions, and each
step takes the next `batch_size` of them. So every sample is drawn once per epoch, no batch is short, and neither the
number of processes nor a restart changes the order: step n begins at position `n * batch_size`. Process r of W takes
the positions p with `p % W == r`. PyTorch's `DistributedSampler` pads the last batch and cannot start in the middle of
an epoch.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np


class SampleOrder(Protocol):
    """A permutation of the samples for each epoch."""

    @property
    def num_samples(self) -> int: ...

    def epoch(self, epoch: int) -> np.ndarray:
        """Permutation `(num_samples,)` of one epoch."""
        ...


@dataclass(frozen=True)
class ShuffledOrder:
    """Uniformly random permutations, for slices that every process holds in memory."""

    seed: int
    num_samples: int

    def epoch(self, epoch: int) -> np.ndarray:
        return _shuffled(self, epoch)


@dataclass(frozen=True)
class WindowOrder:
    """Permutations that can be read from disk in large pieces.

    Pieces of consecutive slices are shuffled and grouped into windows; slices are shuffled within a window.

    Args:
        seed: seed of the permutations.
        lengths: number of slices of each case.
        piece: slices per piece; the last piece of a case may have fewer.
        window: pieces per window.
    """

    seed: int
    lengths: tuple[int, ...]
    piece: int
    window: int

    @property
    def num_samples(self) -> int:
        return sum(self.lengths)

    def epoch(self, epoch: int) -> np.ndarray:
        return _window_by_window(self, epoch)

    def windows(self, epoch: int) -> list[np.ndarray]:
        """The samples of each window of an epoch, in their order."""
        return _in_windows(self, epoch)


@dataclass(frozen=True)
class Sampling:
    """The settings of a training that decide its samples, for process `rank` of `world`."""

    seed: int = 0
    batch_size: int = 8  # slices per step over all processes
    rank: int = 0
    world: int = 1


DEFAULT_SAMPLING = Sampling()


@dataclass(frozen=True)
class Draw:
    """The samples of each step, taken from an order."""

    order: SampleOrder
    sampling: Sampling

    def step(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Epochs and samples, each `(batch_size,)` int64, of the global batch of a step."""
        positions = self._positions(step)
        epochs, within = np.divmod(positions, self.order.num_samples)
        samples = np.empty(len(positions), np.int64)
        for epoch in np.unique(epochs):
            samples[epochs == epoch] = self.order.epoch(int(epoch))[within[epochs == epoch]]
        return epochs, samples

    def share(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Epochs and samples of this process; the shares of one step differ by at most one sample."""
        epochs, samples = self.step(step)
        here = self._positions(step) % self.sampling.world == self.sampling.rank
        return epochs[here], samples[here]

    def _positions(self, step: int) -> np.ndarray:
        batch_size = self.sampling.batch_size
        return np.arange(step * batch_size, (step + 1) * batch_size)


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, epoch]))


@lru_cache(maxsize=2)
def _shuffled(order: ShuffledOrder, epoch: int) -> np.ndarray:
    return _generator(order.seed, epoch).permutation(order.num_samples)


@lru_cache(maxsize=2)
def _in_windows(order: WindowOrder, epoch: int) -> list[np.ndarray]:
    generator, pieces = _generator(order.seed, epoch), _pieces(order.lengths, order.piece)
    shuffled = [pieces[i] for i in generator.permutation(len(pieces))]
    windows = [np.concatenate(shuffled[i : i + order.window]) for i in range(0, len(shuffled), order.window)]
    return [generator.permutation(window) for window in windows]


@lru_cache(maxsize=2)
def _window_by_window(order: WindowOrder, epoch: int) -> np.ndarray:
    return np.concatenate(order.windows(epoch))


@lru_cache(maxsize=2)
def _pieces(lengths: tuple[int, ...], piece: int) -> list[np.ndarray]:
    """Samples of each piece; samples are numbered through the cases."""
    starts = np.cumsum(lengths) - lengths
    return [
        np.arange(start + first, start + min(first + piece, length))
        for start, length in zip(starts, lengths, strict=True)
        for first in range(0, length, piece)
    ]
