"""The order of samples: every sample once per epoch, and a function of seed and position alone."""

from collections.abc import Callable

import numpy as np
import pytest

from attunet.loading.order import Draw, SampleOrder, Sampling, ShuffledOrder, WindowOrder

LENGTHS = (31, 7, 40, 1, 25, 100, 96, 300)
ORDERS: dict[str, Callable[[int], SampleOrder]] = {
    "resident": lambda seed: ShuffledOrder(seed, sum(LENGTHS)),
    "streamed": lambda seed: WindowOrder(seed, LENGTHS, 8, 5),
}
NUM_SAMPLES = sum(LENGTHS)
each_order = pytest.mark.parametrize("make", ORDERS.values(), ids=ORDERS)


def stream(order: SampleOrder, batch_size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    steps = [Draw(order, Sampling(0, batch_size)).step(step) for step in range(-(-count // batch_size))]
    return tuple(np.concatenate(part)[:count] for part in zip(*steps, strict=True))  # type: ignore[return-value]


@each_order
def test_every_sample_once_per_epoch_and_other_orders_in_other_epochs(make: Callable[[int], SampleOrder]) -> None:
    epochs, samples = stream(make(3), 16, 3 * NUM_SAMPLES)
    for epoch in range(3):
        assert sorted(samples[epochs == epoch]) == list(range(NUM_SAMPLES))
    assert not np.array_equal(samples[:NUM_SAMPLES], samples[NUM_SAMPLES : 2 * NUM_SAMPLES])
    assert not np.array_equal(samples, stream(make(4), 16, 3 * NUM_SAMPLES)[1])


@each_order
def test_order_depends_neither_on_the_batch_size_nor_on_the_number_of_processes(
    make: Callable[[int], SampleOrder],
) -> None:
    whole = stream(make(3), 7, 2 * NUM_SAMPLES)[1]
    for batch_size in (5, 64):
        assert np.array_equal(stream(make(3), batch_size, 2 * NUM_SAMPLES)[1], whole)
    for world in (2, 3, 4):
        for step in (0, 17, 60):
            shares = [Draw(make(3), Sampling(0, 10, rank, world)).share(step) for rank in range(world)]
            sizes = [len(samples) for _, samples in shares]
            assert max(sizes) - min(sizes) <= 1
            together = [sorted(np.concatenate(part).tolist()) for part in zip(*shares, strict=True)]
            assert together == [sorted(part.tolist()) for part in Draw(make(3), Sampling(0, 10)).step(step)]


def test_windows_hold_whole_pieces_from_many_cases() -> None:
    order = WindowOrder(1, LENGTHS, 8, 5)
    starts = np.cumsum(LENGTHS) - LENGTHS
    for window in order.windows(0)[:-1]:
        case = np.searchsorted(starts, window, side="right") - 1
        pieces = {(c, (s - starts[c]) // 8) for c, s in zip(case, window, strict=True)}
        assert len(pieces) == 5
        assert len(window) == sum(min(8, LENGTHS[c] - 8 * p) for c, p in pieces)
        assert not np.array_equal(window, np.sort(window))
