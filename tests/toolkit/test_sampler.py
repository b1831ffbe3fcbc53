"""The order of samples: every sample once per epoch, and a function of seed and position alone."""

import numpy as np

from attunet.sampler import draw


def stream(seed: int, batch_size: int, num_samples: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    steps = [draw(seed, step, batch_size, num_samples) for step in range(-(-count // batch_size))]
    return tuple(np.concatenate(part)[:count] for part in zip(*steps, strict=True))  # type: ignore[return-value]


def test_every_sample_once_per_epoch_and_other_orders_in_other_epochs() -> None:
    epochs, samples = stream(seed=3, batch_size=8, num_samples=21, count=63)
    for epoch in range(3):
        assert sorted(samples[epochs == epoch]) == list(range(21))
    assert not np.array_equal(samples[:21], samples[21:42])


def test_order_does_not_depend_on_the_batch_size() -> None:
    for batch_size in (1, 5, 64):
        assert np.array_equal(stream(3, batch_size, 21, 60)[1], stream(3, 7, 21, 60)[1])


def test_seeds_differ() -> None:
    assert not np.array_equal(stream(0, 4, 50, 50)[1], stream(1, 4, 50, 50)[1])
