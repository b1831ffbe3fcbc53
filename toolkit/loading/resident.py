"""The loader that keeps the training set on the device."""

from collections.abc import Sequence

import numpy as np
import torch

from attunet.loading.loader import Batch, Loader
from attunet.loading.order import Sampling, ShuffledOrder
from attunet.store import Store


class ResidentLoader(Loader):
    """All slices on the device, float16 images and uint8 labels as in the store; a batch is one index operation."""

    tier = "resident"

    def __init__(self, store: Store, cases: Sequence[str], device: torch.device, sampling: Sampling) -> None:
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

    def order(self) -> ShuffledOrder:
        return ShuffledOrder(self.sampling.seed, self.num_samples)

    def take(self, step: int) -> Batch:
        epochs, samples = self.draw.share(step)
        numbers = torch.from_numpy(samples).to(self.device, non_blocking=True)
        return Batch(epochs, samples, *self.gather(numbers), self.drawn(numbers))

    def gather(self, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images `(N, in_channels, H, W)` float32 and labels `(N, H, W)` uint8 of sample numbers `(N,)`, all on the
        device.
        """
        slices = self._images[self._channels[samples]]  # (N, context_slices, num_channels, H, W)
        return slices.flatten(1, 2).float(), self._labels[samples]

    def describe(self) -> str:
        return f"all slices on the device ({(self._images.nbytes + self._labels.nbytes) / 1e6:.0f} MB)"
