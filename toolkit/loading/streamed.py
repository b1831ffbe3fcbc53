"""The loader that reads slices from the store during training, for data sets larger than the memory budget.

A thread reads the next window of the order into one of two buffers while steps take slices from the other. It reads
each window case by case in ascending order, in pieces of consecutive slices, so that a disk sees long sequential reads.
On a GPU the buffers are pinned and copied on their own stream, in parallel with the computation. Memory does not grow
with the store.
"""

import mmap
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from attunet.errors import RunError
from attunet.loading.loader import Batch, Loader
from attunet.loading.order import Sampling, WindowOrder
from attunet.store import Store

PIECE = 16  # consecutive slices per read
WINDOW_BYTES = 256 * 10**6  # of one buffer, over all processes
BUFFERS = 2


@dataclass
class Buffer:
    """The slices of one window, in the order of training."""

    images: torch.Tensor
    labels: torch.Tensor
    samples: np.ndarray
    taken: int = 0
    released: torch.cuda.Event | None = None  # after the last copy out of the buffer


class StreamedLoader(Loader):
    """Slices streamed from the store. The order of the samples depends on both sizes.

    Args:
        piece: slices per piece.
        window: pieces per window, by default as many as `WINDOW_BYTES` hold.
    """

    tier = "streamed"

    def __init__(
        self,
        store: Store,
        cases: Sequence[str],
        device: torch.device,
        sampling: Sampling,
        *,
        piece: int = PIECE,
        window: int | None = None,
    ) -> None:
        self._slice_bytes = (2 * store.spec.in_channels + 1) * store.spec.size[0] * store.spec.size[1]
        self.piece, self.window = piece, window or max(2, WINDOW_BYTES // (self._slice_bytes * piece))
        super().__init__(store, cases, device, sampling)
        self._reader: _Reader | None = None
        self._current: Buffer | None = None
        self._next_step = 0
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def order(self) -> WindowOrder:
        return WindowOrder(self.sampling.seed, tuple(int(n) for n in self.lengths), self.piece, self.window)

    def take(self, step: int) -> Batch:
        if self._reader is None or step != self._next_step:
            self._start(step)
        self._next_step = step + 1
        epochs, samples = self.draw.share(step)
        on_gpu = self._stream is not None
        with torch.cuda.stream(self._stream):  # does nothing without one
            shape, dtype = (len(samples), self.in_channels, *self.size), torch.float16 if on_gpu else torch.float32
            images = torch.empty(shape, dtype=dtype, device=self.device)
            labels = torch.empty((len(samples), *self.size), dtype=torch.uint8, device=self.device)
            self._copy(samples, images, labels)
        if self._stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self._stream)
            for tensor in (images, labels):
                tensor.record_stream(current)
        return Batch(epochs, samples, images.float(), labels, self.drawn(torch.from_numpy(samples)))

    def _copy(self, samples: np.ndarray, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Fill the tensors from as many windows as needed; waits for the reader only if that is behind."""
        assert self._reader is not None
        filled = 0
        while filled < len(samples):
            if self._current is None:
                self._current = self._reader.next()
            buffer = self._current
            count = min(len(samples) - filled, len(buffer.samples) - buffer.taken)
            source, target = slice(buffer.taken, buffer.taken + count), slice(filled, filled + count)
            assert np.array_equal(buffer.samples[source], samples[target]), "the reader follows another order"
            images[target].copy_(buffer.images[source], non_blocking=True)
            labels[target].copy_(buffer.labels[source], non_blocking=True)
            filled, buffer.taken = filled + count, buffer.taken + count
            if buffer.taken == len(buffer.samples):
                if self._stream is not None:
                    buffer.released = self._stream.record_event()
                self._reader.give_back(buffer)
                self._current = None

    def close(self) -> None:
        if self._reader is not None:
            self._reader.stop()
        self._reader = self._current = None

    def describe(self) -> str:
        megabytes = BUFFERS * self._capacity() * self._slice_bytes / 1e6
        return f"slices streamed in windows of {self.piece * self.window} ({megabytes:.0f} MB of buffers)"

    def _capacity(self) -> int:
        return min(-(-self.piece * self.window // self.sampling.world), self.num_samples)

    def _start(self, step: int) -> None:
        """Start reading at a step; of the window with that step only the rest is read."""
        self.close()
        capacity = self._capacity()
        pinned = self._stream is not None
        buffers = [
            Buffer(
                torch.empty((capacity, self.in_channels, *self.size), dtype=torch.float16, pin_memory=pinned),
                torch.empty((capacity, *self.size), dtype=torch.uint8, pin_memory=pinned),
                np.empty(0, np.int64),
            )
            for _ in range(BUFFERS)
        ]
        self._reader = _Reader(self._windows(step * self.sampling.batch_size), buffers, self._read)

    def _windows(self, position: int) -> Iterator[np.ndarray]:
        """This process's samples from a position of the stream on, window by window, endlessly."""
        order, rank, world = self.order(), self.sampling.rank, self.sampling.world
        epoch, skip = divmod(position, self.num_samples)
        while True:
            begin = epoch * self.num_samples
            for window in order.windows(epoch):
                positions = np.arange(begin, begin + len(window))
                own = window[(positions % world == rank) & (positions >= epoch * self.num_samples + skip)]
                begin += len(window)
                if len(own):
                    yield own
            epoch, skip = epoch + 1, 0

    def _read(self, buffer: Buffer, samples: np.ndarray) -> None:
        images, labels = buffer.images.numpy(), buffer.labels.numpy()
        ascending = np.argsort(samples)
        numbers, slices = self.locate(samples[ascending])
        channels = self.neighbours(samples[ascending]) - self.starts[numbers][:, None]
        for number in np.unique(numbers):
            image, label = self.store.image(self.cases[number]), self.store.label(self.cases[number])
            for array in (image, label):
                if isinstance(array.base, mmap.mmap):
                    array.base.madvise(mmap.MADV_SEQUENTIAL)
            for row in np.flatnonzero(numbers == number):
                slot = ascending[row]
                images[slot] = image[channels[row]].reshape(images[slot].shape)
                labels[slot] = label[slices[row]]
        buffer.samples, buffer.taken = samples, 0


class _Reader:
    """Fills buffers with one window after the other, in a thread of its own."""

    def __init__(
        self, windows: Iterator[np.ndarray], buffers: list[Buffer], read: Callable[[Buffer, np.ndarray], None]
    ) -> None:
        self._windows, self._read = windows, read
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="slices")
        self._pending = deque(self._pool.submit(self._fill, buffer) for buffer in buffers)

    def next(self) -> Buffer:
        """Wait for the next window and return it. Raises RunError when reading has failed, also in every later call."""
        try:
            buffer = self._pending[0].result()
        except Exception as error:  # any error of the reading thread
            raise RunError(f"the slices can no longer be read: {error}") from error
        self._pending.popleft()
        return buffer

    def give_back(self, buffer: Buffer) -> None:
        self._pending.append(self._pool.submit(self._fill, buffer))

    def stop(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _fill(self, buffer: Buffer) -> Buffer:
        if buffer.released is not None:
            buffer.released.synchronize()  # this thread waits, the training thread does not
        self._read(buffer, next(self._windows))
        return buffer
