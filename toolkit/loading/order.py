"""Which slice is drawn when: a pure function of the seed and the position in the training.

Each epoch is a permutation of all samples; the epochs one after the other form an endless stream of positions, and a step takes the
next `batch_size` of it. So every sample is drawn once per epoch, no batch is ever short, and neither the number of processes nor the
moment of a restart changes the order: step n begins at position `n * batch_size`. Process r of W takes the positions p with
`p % W == r`. How an epoch is permuted is up to the tier that the slices are kept in: an order per tier.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

LANES = 240  # divisible by 1 to 6, 8, 10, 12, 15, 16, 20, 24, 30, 40, 48, 60, 80: numbers of processes


class SampleOrder(Protocol):
    """How the samples of each epoch are permuted."""

    @property
    def num_samples(self) -> int: ...

    def epoch(self, epoch: int) -> np.ndarray:
        """Permutation `(num_samples,)` of one epoch."""
        ...


@dataclass(frozen=True)
class ShuffledOrder:
    """Any sample anywhere: for slices that every process holds all of."""

    seed: int
    num_samples: int

    def epoch(self, epoch: int) -> np.ndarray:
        return _shuffled(self, epoch)


@dataclass(frozen=True)
class LaneOrder:
    """Position p takes a slice of lane `p % LANES`, so that a process needs only the lanes that its positions meet.

    A lane is a run of consecutive samples, shuffled in itself every epoch; all lanes are of one length. The few samples that this
    leaves over are everyone's, and take the turns by which an epoch visits some lanes once more than they have samples.
    """

    seed: int
    num_samples: int

    def epoch(self, epoch: int) -> np.ndarray:
        return _in_lanes(self, epoch)

    def held(self, rank: int, world: int) -> np.ndarray:
        """Samples that process `rank` of `world` may ever draw, ascending; `world` divides `LANES`."""
        assert LANES % world == 0, world
        length = self.num_samples // LANES
        mine = [np.arange(block * length, (block + 1) * length) for block in _lane_blocks()[rank::world]]
        return np.sort(np.concatenate([*mine, np.arange(LANES * length, self.num_samples)]))


@dataclass(frozen=True)
class WindowOrder:
    """For reading in large pieces: pieces of consecutive slices are shuffled, and the slices within a window of so many pieces.

    lengths: slices of each case; piece: slices of a piece (the last one of a case may have fewer); window: pieces.
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
class Draw:
    """What each step takes from an order, and process `rank` of `world` of it."""

    order: SampleOrder
    batch_size: int
    rank: int = 0
    world: int = 1

    def step(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Epochs and samples, each `(batch_size,)` int64, of the global batch of a step."""
        positions = self._positions(step)
        epochs, within = np.divmod(positions, self.order.num_samples)
        samples = np.empty(self.batch_size, np.int64)
        for epoch in np.unique(epochs):
            samples[epochs == epoch] = self.order.epoch(int(epoch))[within[epochs == epoch]]
        return epochs, samples

    def share(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Epochs and samples of this process; shares of one step differ by one sample at most."""
        epochs, samples = self.step(step)
        mine = self._positions(step) % self.world == self.rank
        return epochs[mine], samples[mine]

    def _positions(self, step: int) -> np.ndarray:
        return np.arange(step * self.batch_size, (step + 1) * self.batch_size)


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, epoch]))


@lru_cache(maxsize=2)
def _shuffled(order: ShuffledOrder, epoch: int) -> np.ndarray:
    return _generator(order.seed, epoch).permutation(order.num_samples)


@lru_cache(maxsize=1)
def _lane_blocks() -> np.ndarray:
    """Which run of samples each lane is: shuffled, so that a batch does not meet one case alone."""
    return _generator(0, 0).permutation(LANES)


@lru_cache(maxsize=2)
def _in_lanes(order: LaneOrder, epoch: int) -> np.ndarray:
    generator, length = _generator(order.seed, epoch), order.num_samples // LANES
    rest = list(generator.permutation(np.arange(LANES * length, order.num_samples)))
    samples = np.empty(order.num_samples, np.int64)
    for lane, block in enumerate(_lane_blocks()):
        turns = np.arange((lane - epoch * order.num_samples) % LANES, order.num_samples, LANES)
        if len(turns) > length:
            extra = generator.integers(len(turns))
            samples[turns[extra]] = rest.pop()
            turns = np.delete(turns, extra)
        samples[turns] = block * length + generator.permutation(length)
    return samples


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
