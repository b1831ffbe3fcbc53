"""Which slice is drawn when: a pure function of the seed and the position in the training.

Each epoch is a permutation of all samples; the epochs one after the other form an endless stream, and a step takes the next
`batch_size` of it. So every sample is drawn once per epoch, no batch is ever short, and neither the number of processes nor the
moment of a restart changes the order: the position is `step * batch_size`.
"""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    """Permutation `(num_samples,)` of one epoch."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, epoch])).permutation(num_samples)


def draw(seed: int, step: int, batch_size: int, num_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and samples, each `(batch_size,)` int64, of the global batch of one step."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // num_samples
    samples = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        mine = epochs == epoch
        samples[mine] = epoch_order(seed, int(epoch), num_samples)[positions[mine] % num_samples]
    return epochs, samples
