"""The loader that keeps the training set on the device."""

from collections.abc import Sequence

import numpy as np
import torch

from attunet.loading.loader import Batch, Loader
from attunet.loading.order import DEFAULT_SAMPLING, Sampling, ShuffledOrder
from attunet.store import Store


class ResidentLoader(Loader):
    """All slices on the device, float16 images and uint8 labels as in the store; a batch is one index operation."""

    tier = "resident"

    def __init__(
        self, store: Store, cases: Sequence[str], device: torch.device, sampling: Sampling = DEFAULT_SAMPLING
    ) -> None:
        super().__init__(store, cases, device, sampling)
        self._images = torch.empty(
            (self.num_samples, store.spec.num_channels, *self.size), dtype=torch.float16, device=device
        )
        self._labels = torch.empty((self.num_samples, *self.size), dtype=torch.uint8, device=device)
        for case, start, length in zip(self.cases, self.starts, self.lengths, strict=True):
            for target, source in ((self._images, store.image(case)), (self._labels, store.label(case))):
                target[start : start + length] = torch.from_numpy(np.array(source)).to(device)
        # (num_samples, context_slices)
        self._channels = torch.from_numpy(self.neighbours(np.arange(self.num_samples))).to(device)

    @property
    def bytes_on_device(self) -> int:
        return self._images.nbytes + self._labels.nbytes

    def order(self) -> ShuffledOrder:
        return ShuffledOrder(self.sampling.seed, self.num_samples)

    def take(self, step: int) -> Batch:
        epochs, samples = self.draw.share(step)
        return Batch(epochs, samples, *self.batch(samples), self.drawn(torch.from_numpy(samples)))

    def batch(self, samples: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Images `(N, in_channels, H, W)` float32 and labels `(N, H, W)` uint8 of the samples `(N,)`, on the device."""
        return self.gather(torch.from_numpy(samples).to(self.device, non_blocking=True))

    def gather(self, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As `batch`, for sample numbers `(N,)` that are on the device."""
        slices = self._images[self._channels[samples]]  # (N, context_slices, num_channels, H, W)
        return slices.flatten(1, 2).float(), self._labels[samples]

    def describe(self) -> str:
        return f"all slices on the device ({self.bytes_on_device / 1e6:.0f} MB)"
