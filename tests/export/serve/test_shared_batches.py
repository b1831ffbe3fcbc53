"""Slices of several threads in one batch of a device."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from attunet.export.runtime import Segmenter
from attunet.export.serve.work import shared_batches
from attunet.export.serve.work.shared_batches import SharedBatches


class Device:
    """A network that gives its slices once, twice or more often, as the outputs' names say; it waits until `go` is set,
    and remembers the batches it got."""

    def __init__(self) -> None:
        self.go, self.batches = threading.Event(), []

    def __call__(self, names: tuple[str, ...], slices: np.ndarray) -> list[np.ndarray]:
        self.batches.append(slices.shape)
        assert self.go.wait(20)
        if (slices == 13).any():
            raise RuntimeError("thirteen")
        return [int(name) * slices for name in names]


def slices(value: float, count: int = 3, side: int = 16) -> np.ndarray:
    return np.full((count, 1, side, side), value, np.float32)


def run_together(
    device: Device, shared: SharedBatches, parts: list[np.ndarray], outputs: list[tuple[str, ...]] | None = None
) -> list["Future[list[np.ndarray]]"]:
    """The first part is on the device until the others wait; the results when all are done."""
    futures = []
    with ThreadPoolExecutor(8) as threads:
        for number, part in enumerate(parts):
            futures.append(threads.submit(shared.run, outputs[number] if outputs else ("2",), part))
            while len(shared._waiting) != number or not shared._device.locked():
                pass
        device.go.set()
    return futures


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def shared(device: Device, monkeypatch: pytest.MonkeyPatch) -> SharedBatches:
    monkeypatch.setattr(shared_batches, "MAX_SLICES", 16)
    return SharedBatches(device)


def test_waiting_slices_share_a_batch_and_each_caller_gets_its_own(device: Device, shared: SharedBatches) -> None:
    parts = [slices(value, count=count) for value, count in enumerate((3, 3, 5, 2, 8), start=1)]
    for part, future in zip(parts, run_together(device, shared, parts), strict=True):
        np.testing.assert_array_equal(future.result(), [2 * part])
    # The first alone; then 3 + 5 + 2 slices, which leave no room for 8 more; every batch filled up to a multiple of 8.
    assert [shape[0] for shape in device.batches] == [8, 16, 8]


def test_other_shapes_have_batches_of_their_own(device: Device, shared: SharedBatches) -> None:
    parts = [slices(1), slices(2, side=32), slices(3, side=32)]
    for part, future in zip(parts, run_together(device, shared, parts), strict=True):
        np.testing.assert_array_equal(future.result(), [2 * part])
    assert sorted(device.batches) == [(8, 1, 16, 16), (8, 1, 32, 32)]


@pytest.mark.parametrize(("side", "count", "expected"), [(2048, 1, [1, 1, 1]), (1024, 1, [2, 2]), (512, 5, [8, 8, 8])])
def test_batches_of_large_slices_have_no_more_pixels_than_those_of_predict(
    device: Device, side: int, count: int, expected: list[int]
) -> None:
    shared = SharedBatches(device)
    futures = run_together(device, shared, [slices(value, count=count, side=side) for value in (1, 2, 3)])
    assert [future.result()[0].flat[0] for future in futures] == [2, 4, 6]
    assert [shape[0] for shape in device.batches] == expected


def test_slices_with_the_same_outputs_share_a_batch(device: Device, shared: SharedBatches) -> None:
    """As the Open Inference Protocol asks for them, by name."""
    parts, outputs = [slices(1), slices(2), slices(3), slices(4)], [("1",), ("3", "1"), ("1", "3"), ("3", "1")]
    for part, names, future in zip(parts, outputs, run_together(device, shared, parts, outputs), strict=True):
        np.testing.assert_array_equal(future.result(), [int(name) * part for name in names])
    assert [shape[0] for shape in device.batches] == [8, 8, 8]


def test_an_error_reaches_all_of_its_batch_and_no_other(device: Device, shared: SharedBatches) -> None:
    first, *others = run_together(device, shared, [slices(1), slices(13), slices(2)])
    np.testing.assert_array_equal(first.result(), [slices(2)])
    for future in others:
        with pytest.raises(RuntimeError, match="thirteen"):
            future.result()
    np.testing.assert_array_equal(shared.run(("2",), slices(4)), [slices(8)])


def test_the_labels_are_those_of_the_network_alone(artefact, scan):
    """Through the real network from several threads at once: the same logits for a slice whatever shares its batch."""
    segmenter = Segmenter(artefact, num_threads=1)
    shared = SharedBatches(segmenter.run)
    noise = np.random.default_rng(0)
    parts = [noise.normal(size=(2 + number % 3, 1, 32, 32)).astype(np.float32) for number in range(12)]
    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(partial(shared.run, ("logits",)), parts))
    for part, (result,) in zip(parts, results, strict=True):
        np.testing.assert_allclose(result, segmenter.logits(part), rtol=1e-5, atol=1e-5)
