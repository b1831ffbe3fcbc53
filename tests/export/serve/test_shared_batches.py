"""Slices of several threads in one batch of a device."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from attunet.export.serve.work.shared_batches import SharedBatches


class Device:
    """A network that doubles its slices, waits until `go` is set, and remembers the batches it got."""

    def __init__(self) -> None:
        self.go, self.batches, self.runs = threading.Event(), [], 0

    def __call__(self, slices: np.ndarray) -> np.ndarray:
        self.batches.append(slices.shape)
        assert self.go.wait(20)
        if (slices == 13).any():
            raise RuntimeError("thirteen")
        return 2 * slices


def slices(value: float, count: int = 3, side: int = 16) -> np.ndarray:
    return np.full((count, 1, side, side), value, np.float32)


def waiting(network: SharedBatches, count: int) -> bool:
    return len(network._waiting) == count


def start(threads: ThreadPoolExecutor, network: SharedBatches, parts: list[np.ndarray]):
    """The first part is on the device; the others wait."""
    futures = []
    for number, part in enumerate(parts):
        futures.append(threads.submit(network, part))
        while not (waiting(network, number) and network._device.locked()):
            pass
    return futures


def test_what_waits_shares_a_batch_and_everybody_gets_the_own_part():
    device = Device()
    network = SharedBatches(device, max_slices=16)
    with ThreadPoolExecutor(8) as threads:
        parts = [slices(value, count=count) for value, count in enumerate((3, 3, 5, 2, 8), start=1)]
        futures = start(threads, network, parts)
        device.go.set()
        for part, future in zip(parts, futures, strict=True):
            np.testing.assert_array_equal(future.result(20), 2 * part)
    # The first alone; then 3 + 5 + 2 slices, which leave no room for 8 more; every batch filled up to a multiple of 8.
    assert [shape[0] for shape in device.batches] == [8, 16, 8]


def test_other_shapes_have_batches_of_their_own():
    device = Device()
    network = SharedBatches(device, max_slices=16)
    with ThreadPoolExecutor(8) as threads:
        parts = [slices(1), slices(2, side=32), slices(3, side=32)]
        futures = start(threads, network, parts)
        device.go.set()
        for part, future in zip(parts, futures, strict=True):
            np.testing.assert_array_equal(future.result(20), 2 * part)
    assert sorted(device.batches) == [(8, 1, 16, 16), (8, 1, 32, 32)]


def test_an_error_reaches_all_of_its_batch_and_nobody_else():
    device = Device()
    network = SharedBatches(device, max_slices=16)
    with ThreadPoolExecutor(8) as threads:
        futures = start(threads, network, [slices(1), slices(13), slices(2)])
        device.go.set()
        np.testing.assert_array_equal(futures[0].result(20), slices(2))
        for future in futures[1:]:
            with pytest.raises(RuntimeError, match="thirteen"):
                future.result(20)
    np.testing.assert_array_equal(network(slices(4)), slices(8))


def test_the_labels_are_those_of_the_network_alone(artefact, scan):
    """Through the real network from several threads at once: the same logits for a slice whatever shares its batch."""
    from attunet.export.runtime import Segmenter

    segmenter = Segmenter(artefact, num_threads=1)
    network = SharedBatches(segmenter.logits)
    parts = [
        np.random.default_rng(number).normal(size=(2 + number % 3, 1, 32, 32)).astype(np.float32)
        for number in range(12)
    ]
    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(network, parts))
    for part, result in zip(parts, results, strict=True):
        np.testing.assert_allclose(result, segmenter.logits(part), rtol=1e-5, atol=1e-5)
