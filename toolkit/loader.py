"""The store's slices on the training device, in batches: what every tier has in common, and the tier that keeps them there.

A sample is a slice; samples are numbered through the cases in the order given.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from attunet.classes import IGNORE_LABEL
from attunet.sampler import Draw, LaneOrder, SampleOrder, ShuffledOrder
from attunet.store import Store


@dataclass(frozen=True)
class Batch:
    """One process's share of a step: images `(N, in_channels, H, W)` float32, labels `(N, H, W)` uint8, on the device."""

    epochs: np.ndarray
    samples: np.ndarray
    images: torch.Tensor
    labels: torch.Tensor

    def split(self, parts: int) -> "list[Batch]":
        """Parts whose sizes differ by one at most."""
        arrays = (np.array_split(array, parts) for array in (self.epochs, self.samples))
        tensors = (tensor.tensor_split(parts) for tensor in (self.images, self.labels))
        return [Batch(*part) for part in zip(*arrays, *tensors, strict=True)]


class Loader(ABC):
    """What a training asks of its data. `follow` says what will be drawn, then `take` gives step after step, from any step on."""

    def __init__(self, store: Store, cases: Sequence[str], device: torch.device, tier: str) -> None:
        self.tier = tier  # its name: it says in which order the samples come, so a training keeps it for good
        self.store, self.cases, self.device = store, list(cases), device
        self.lengths = np.array([store.case(case).num_slices for case in cases])
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.num_samples = int(self.lengths.sum())
        self.size = (int(store.spec.size[0]), int(store.spec.size[1]))
        self.in_channels = store.spec.in_channels

    @abstractmethod
    def order(self, seed: int) -> SampleOrder:
        """The order in which this tier gives the samples."""

    def follow(self, draw: Draw) -> None:
        """Sets which samples `take` gives; `draw.order` is this tier's."""
        self._draw = draw

    @abstractmethod
    def take(self, step: int) -> Batch:
        """This process's share of a step. Raises RunError when the slices can no longer be read."""

    def close(self) -> None:  # noqa: B027, most tiers have nothing to end
        """Ends what works in the background."""

    @abstractmethod
    def in_words(self) -> str:
        """Where the slices are, for the headline."""

    def locate(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number of the case and of the slice in it, of each sample."""
        numbers = np.searchsorted(self.starts, samples, side="right") - 1
        return numbers, samples - self.starts[numbers]

    def neighbours(self, samples: np.ndarray) -> np.ndarray:
        """Samples `(N, context_slices)` that are the channels of each sample; clamped at the ends of its case."""
        reach = self.store.spec.context_slices // 2
        numbers, _ = self.locate(samples)
        first, last = self.starts[numbers], self.starts[numbers] + self.lengths[numbers] - 1
        wanted: np.ndarray = np.clip(samples[:, None] + np.arange(-reach, reach + 1), first[:, None], last[:, None])
        return wanted

    def describe(self, sample: int) -> str:
        """Case and slice of a sample, for messages."""
        numbers, slices = self.locate(np.array([sample]))
        return f"{self.cases[int(numbers[0])]}[{int(slices[0])}]"

    def class_frequencies(self, num_classes: int) -> torch.Tensor:
        """Share of each class among the labelled pixels, `(num_classes,)` float32; reads all labels once."""
        counts = np.zeros(IGNORE_LABEL + 1, np.int64)
        for case in self.cases:
            counts += np.bincount(self.store.label(case).ravel(), minlength=IGNORE_LABEL + 1)
        known = torch.from_numpy(counts[:num_classes]).double()
        return (known / known.sum()).float()


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
