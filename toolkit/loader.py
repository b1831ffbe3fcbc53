"""The store's slices on the training device, handed out in batches by index."""

from collections.abc import Sequence

import numpy as np
import torch

from attunet.classes import IGNORE_LABEL
from attunet.store import Store


class ResidentLoader:
    """All slices of some cases, kept on the device as they are in the store: float16 images, uint8 labels.

    A sample is a slice; samples are numbered through the cases in the order given. No worker processes: a batch is one
    `index_select` on the device.
    """

    def __init__(self, store: Store, cases: Sequence[str], device: torch.device) -> None:
        images = [store.image(case) for case in cases]
        lengths = np.array([len(image) for image in images])
        starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
        self.num_samples = int(lengths.sum())
        self.case_of_sample = np.repeat(np.array(cases, dtype=object), lengths)
        self.slice_of_sample = np.arange(self.num_samples) - starts
        self._images = torch.from_numpy(np.concatenate(images)).to(device)
        self._labels = torch.from_numpy(np.concatenate([store.label(case) for case in cases])).to(device)
        reach = store.spec.context_slices // 2
        offsets = np.arange(-reach, reach + 1)
        last = starts + np.repeat(lengths, lengths) - 1
        neighbours = np.clip(np.arange(self.num_samples)[:, None] + offsets, starts[:, None], last[:, None])
        self._neighbours = torch.from_numpy(neighbours).to(device)  # (samples, context_slices), clamped at the ends of the case

    @property
    def size(self) -> tuple[int, int]:
        """`(H, W)` of the slices."""
        height, width = self._labels.shape[1:]
        return height, width

    @property
    def bytes_on_device(self) -> int:
        return self._images.nbytes + self._labels.nbytes

    def batch(self, samples: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Images `(N, in_channels, H, W)` float32 and labels `(N, H, W)` uint8 of the samples, on the device."""
        index = torch.from_numpy(samples).to(self._images.device, non_blocking=True)
        slices = self._images[self._neighbours[index]]  # (N, context_slices, num_channels, H, W)
        return slices.flatten(1, 2).float(), self._labels[index]

    def describe(self, sample: int) -> str:
        """Case and slice of a sample, for messages."""
        return f"{self.case_of_sample[sample]}[{self.slice_of_sample[sample]}]"

    def class_frequencies(self, num_classes: int) -> torch.Tensor:
        """Share of each class among the labelled pixels, `(num_classes,)` float32."""
        counts = torch.bincount(self._labels.flatten().int(), minlength=IGNORE_LABEL + 1)[:num_classes].double()
        return (counts / counts.sum()).float()
