"""The base class of the loaders, which put the store's slices onto the training device in batches.

A sample is a slice; samples are numbered through the cases in the order given.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from attunet.classes import IGNORE_LABEL
from attunet.loading.order import Draw, SampleOrder, Sampling
from attunet.store import Store


@dataclass(frozen=True)
class Batch:
    """One process's share of a step, on the device.

    Args:
        epochs, samples: `(N,)`.
        images: `(N, in_channels, H, W)` float32.
        labels: `(N, H, W)` uint8.
        drawn: `(N, K)` bool, the classes that were drawn in each slice; None if all were drawn in every case.
    """

    epochs: np.ndarray
    samples: np.ndarray
    images: torch.Tensor
    labels: torch.Tensor
    drawn: torch.Tensor | None = None

    def split(self, parts: int) -> "list[Batch]":
        """Split into `parts` batches whose sizes differ by at most one."""
        arrays = (np.array_split(array, parts) for array in (self.epochs, self.samples))
        tensors = (tensor.tensor_split(parts) for tensor in (self.images, self.labels))
        drawn = [None] * parts if self.drawn is None else self.drawn.tensor_split(parts)
        return [Batch(*part) for part in zip(*arrays, *tensors, drawn, strict=True)]


class Loader(ABC):
    """Batches of a training, step after step from any step on."""

    tier: str  # where the slices are kept; the order of the samples depends on it, so a run keeps its tier

    def __init__(self, store: Store, cases: Sequence[str], device: torch.device, sampling: Sampling) -> None:
        self.store, self.cases, self.device, self.sampling = store, list(cases), device, sampling
        self.lengths = np.array([store.case(case).num_slices for case in cases])
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.num_samples = int(self.lengths.sum())
        self.size = (int(store.spec.size[0]), int(store.spec.size[1]))
        self.in_channels = store.spec.in_channels
        self.draw = Draw(self.order(), sampling)
        drawn = np.stack([store.drawn_classes(case) for case in cases])
        # (num_samples, K)
        self._drawn = None if drawn.all() else torch.from_numpy(np.repeat(drawn, self.lengths, axis=0)).to(device)

    @abstractmethod
    def order(self) -> SampleOrder:
        """The order of the samples in this tier."""

    @abstractmethod
    def take(self, step: int) -> Batch:
        """This process's share of a step. Raises RunError when the slices can no longer be read."""

    def close(self) -> None:  # noqa: B027, not every loader has something to end
        """End background work."""

    @abstractmethod
    def describe(self) -> str:
        """Tier and memory of the slices, for the log."""

    def locate(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Case number and slice number of each sample."""
        numbers = np.searchsorted(self.starts, samples, side="right") - 1
        return numbers, samples - self.starts[numbers]

    def neighbours(self, samples: np.ndarray) -> np.ndarray:
        """Samples `(N, context_slices)` that are the channels of each sample; clamped at the ends of its case."""
        reach = self.store.spec.context_slices // 2
        numbers, _ = self.locate(samples)
        first, last = self.starts[numbers], self.starts[numbers] + self.lengths[numbers] - 1
        return np.asarray(np.clip(samples[:, None] + np.arange(-reach, reach + 1), first[:, None], last[:, None]))

    def drawn(self, samples: torch.Tensor) -> torch.Tensor | None:
        """Classes that were drawn in the case of each sample, `(N, K)` bool; None if all were drawn everywhere."""
        return None if self._drawn is None else self._drawn[samples.to(self.device, non_blocking=True)]

    def describe_samples(self, samples: np.ndarray) -> str:
        """Case and slice of each sample once, for messages."""
        numbers, slices = self.locate(np.unique(samples))
        return ", ".join(f"{self.cases[number]}[{index}]" for number, index in zip(numbers, slices, strict=True))

    def drawn_shares(self) -> torch.Tensor | None:
        """Share of the slices that each class was drawn in, `(K,)` float32; None if all were drawn everywhere."""
        return None if self._drawn is None else self._drawn.float().mean(0)

    def class_frequencies(self) -> torch.Tensor:
        """Share of each class among the labelled pixels of the cases that it was drawn in, `(K,)` float32.

        Reads all labels once.
        """
        num_classes = len(self.store.classes)
        counts, totals = np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64)
        for case in self.cases:
            voxels = np.bincount(self.store.label(case).ravel(), minlength=IGNORE_LABEL + 1)[:num_classes]
            drawn = self.store.drawn_classes(case)
            counts += drawn * voxels
            totals += drawn * voxels.sum()
        return torch.from_numpy(counts / np.maximum(totals, 1)).float()
