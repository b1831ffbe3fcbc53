"""The order in which a training draws slices: a pure function of the seed and the position in the training.

Each epoch is a permutation of all samples; the epochs one after the other form an endless stream of positions, and each
step takes the next `batch_size` of them. So every sample is drawn once per epoch, no batch is short, and neither the
number of processes nor a restart changes the order: step n begins at position `n * batch_size`. Process r of W takes
the positions p with `p % W == r`. PyTorch's `DistributedSampler` pads the last batch and cannot start in the middle of
an epoch.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class ShuffledOrder:
    """Uniformly random permutations, for slices that every process holds in memory."""

    seed: int
    num_samples: int

    def epoch(self, epoch: int) -> np.ndarray:
        """Permutation `(num_samples,)` of one epoch."""
        return _generator(self.seed, epoch).permutation(self.num_samples)


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
        """Permutation `(num_samples,)` of one epoch."""
        return np.concatenate(self.windows(epoch))

    def windows(self, epoch: int) -> list[np.ndarray]:
        """The samples of each window of an epoch, in their order; samples are numbered through the cases."""
        starts = np.cumsum(self.lengths) - self.lengths
        pieces = [
            np.arange(start + first, start + min(first + self.piece, length))
            for start, length in zip(starts, self.lengths, strict=True)
            for first in range(0, length, self.piece)
        ]
        generator = _generator(self.seed, epoch)
        shuffled = [pieces[i] for i in generator.permutation(len(pieces))]
        windows = [np.concatenate(shuffled[i : i + self.window]) for i in range(0, len(shuffled), self.window)]
        return [generator.permutation(window) for window in windows]


SampleOrder = ShuffledOrder | WindowOrder


@dataclass(frozen=True)
class Sampling:
    """The settings of a training that decide its samples, for process `rank` of `world`."""

    seed: int = 0
    batch_size: int = 8  # slices per step over all processes
    rank: int = 0
    world: int = 1


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
            samples[epochs == epoch] = _permutation(self.order, int(epoch))[within[epochs == epoch]]
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
def _permutation(order: SampleOrder, epoch: int) -> np.ndarray:
    return order.epoch(epoch)
