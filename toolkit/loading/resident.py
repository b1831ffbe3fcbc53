"""The loader whose data set lies on the training device."""

from collections.abc import Sequence

import numpy as np
import torch

from attunet.loading.loader import Batch, Loader
from attunet.loading.order import LaneOrder, SampleOrder, ShuffledOrder
from attunet.store import Store


class ResidentLoader(Loader):
    """Slices kept on the device as they are in the store: float16 images, uint8 labels. A batch is one `index_select` there.

    share: (rank, world) to keep only what this process draws (tier "shared"); without it, everything (tier "resident").
    """

    def __init__(self, store: Store, cases: Sequence[str], device: torch.device, *, share: tuple[int, int] | None = None) -> None:
        super().__init__(store, cases, device, "resident" if share is None else "shared")
        everything = np.arange(self.num_samples)
        held = everything if share is None else LaneOrder(0, self.num_samples).held(*share)
        channels = self.neighbours(held)
        kept = np.unique(channels)
        self._images = torch.empty((len(kept), store.spec.num_channels, *self.size), dtype=torch.float16, device=device)
        self._labels = torch.empty((len(kept), *self.size), dtype=torch.uint8, device=device)
        self._fill(kept)
        self._row = np.full(self.num_samples, -1)
        self._row[held] = np.arange(len(held))
        self._channels = torch.from_numpy(np.searchsorted(kept, channels)).to(device)  # (held, context_slices), rows of _images
        self._centre = torch.from_numpy(np.searchsorted(kept, held)).to(device)

    def _fill(self, kept: np.ndarray) -> None:
        numbers, slices = self.locate(kept)
        for number in np.unique(numbers):
            case, rows = self.cases[number], np.flatnonzero(numbers == number)
            where, which = slice(int(rows[0]), int(rows[-1]) + 1), slices[rows]
            for target, source in ((self._images, self.store.image(case)), (self._labels, self.store.label(case))):
                target[where] = torch.from_numpy(np.asarray(source[which])).to(self.device)

    @property
    def bytes_on_device(self) -> int:
        return self._images.nbytes + self._labels.nbytes

    def order(self, seed: int) -> SampleOrder:
        return LaneOrder(seed, self.num_samples) if self.tier == "shared" else ShuffledOrder(seed, self.num_samples)

    def take(self, step: int) -> Batch:
        epochs, samples = self._draw.share(step)
        return Batch(epochs, samples, *self.batch(samples))

    def batch(self, samples: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Images `(N, in_channels, H, W)` float32 and labels `(N, H, W)` uint8 of any samples that are kept here, on the device."""
        rows = self._row[samples]
        assert (rows >= 0).all(), "a sample of another process"
        index = torch.from_numpy(rows).to(self.device, non_blocking=True)
        slices = self._images[self._channels[index]]  # (N, context_slices, num_channels, H, W)
        return slices.flatten(1, 2).float(), self._labels[self._centre[index]]

    def in_words(self) -> str:
        whose = "this process's share of the slices" if self.tier == "shared" else "all slices"
        return f"{whose} on the device ({self.bytes_on_device / 1e6:.0f} MB)"
