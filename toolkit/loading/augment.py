"""Augmentation of a whole batch on its device.

The random numbers of a sample are a function of (seed, epoch, sample): `draw_parameters` draws them on the host with a
counter-based generator, so batch size, number of processes and restarts change nothing. `Augmenter` then applies all
transforms of `TRANSFORMS` in a few batched operations; image and label go through one resampling grid. There is no
left-right flip: left and right kidney are different classes. kornia has most of these transforms, with random numbers
that depend on the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from attunet.config import AugmentConfig
from attunet.loading.transform import Context, Sample
from attunet.loading.transforms import INTENSITY, MIN_UNIFORMS, SPATIAL, TRANSFORMS
from attunet.loading.transforms.low_resolution import low_resolution_table


@dataclass(frozen=True)
class Parameters:
    """Parameters of a batch: float32 `(N, ...)` by transform, and a key int64 `(N,)` for random noise on the device."""

    values: dict[str, torch.Tensor]
    keys: torch.Tensor

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Parameters":
        """The parameters with every tensor changed."""
        return Parameters({name: change(value) for name, value in self.values.items()}, change(self.keys))

    def split(self, parts: int) -> list["Parameters"]:
        """Views of the parameters of `parts` parts of the batch, whose sizes differ by at most one."""
        keys = self.keys.tensor_split(parts)
        values = {name: value.tensor_split(parts) for name, value in self.values.items()}
        return [Parameters({name: value[i] for name, value in values.items()}, keys[i]) for i in range(parts)]


def draw_parameters(
    config: AugmentConfig, *, seed: int, epochs: np.ndarray, samples: np.ndarray, size: tuple[int, int]
) -> Parameters:
    """Draw the parameters of samples.

    Args:
        config: probabilities and ranges.
        seed: of the training.
        epochs, samples: `(N,)`, the epoch and the number of each sample.
        size: `(H, W)` of the slices.

    Returns:
        The parameters, on the CPU.

    Example:
        >>> epochs, samples = np.zeros(4, int), np.arange(4)
        >>> parameters = draw_parameters(AugmentConfig(), seed=0, epochs=epochs, samples=samples, size=(256, 256))
    """
    counters = ([0, 0, sample + 1, epoch] for epoch, sample in zip(epochs, samples, strict=True))
    generators = [np.random.Generator(np.random.Philox(key=seed, counter=counter)) for counter in counters]
    num_uniforms = max(MIN_UNIFORMS, sum(transform.uniforms for transform in TRANSFORMS))
    uniform = np.stack([g.random(num_uniforms) for g in generators])
    normal = np.stack([g.standard_normal(sum(transform.normals for transform in TRANSFORMS)) for g in generators])
    keys = np.stack([g.integers(0, 2**31) for g in generators])
    values, column, normal_column = {}, 0, 0
    for transform in TRANSFORMS:
        own = Sample(
            uniform[:, column + 1 : column + transform.uniforms],
            normal[:, normal_column : normal_column + transform.normals],
            size,
        )
        drawn = transform.draw(config, own)
        applied = uniform[:, column] < getattr(config, f"{transform.name}_probability")
        chosen = np.where(applied.reshape(-1, *[1] * (drawn.ndim - 1)), drawn, transform.neutral)
        values[transform.name] = torch.from_numpy(np.ascontiguousarray(chosen, dtype=np.float32))
        column, normal_column = column + transform.uniforms, normal_column + transform.normals
    return Parameters(values, torch.from_numpy(keys.astype(np.int64)))


class Augmenter:
    """Applies drawn parameters to batches of one slice size.

    Args:
        config: probabilities and ranges.
        size: `(H, W)` of the slices.
        device: of the batches.
    """

    def __init__(self, config: AugmentConfig, size: tuple[int, int], device: torch.device) -> None:
        self.config, self.size, self.device = config, size, device
        self._blur_rows = low_resolution_table(size[0], config.low_resolution).to(device)
        self._blur_columns = low_resolution_table(size[1], config.low_resolution).to(device)

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, *, seed: int, epochs: np.ndarray, samples: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment a batch.

        Args:
            images: `(N, C, H, W)` float32.
            labels: `(N, H, W)` uint8.
            seed, epochs, samples: as for `draw_parameters`.

        Returns:
            Images and labels of the same shapes and types.
        """
        if not self.config.enabled:
            return images, labels
        parameters = draw_parameters(self.config, seed=seed, epochs=epochs, samples=samples, size=self.size)
        return self.apply(images, labels, parameters.map(lambda value: value.to(self.device, non_blocking=True)))

    def apply(
        self, images: torch.Tensor, labels: torch.Tensor, parameters: Parameters
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment a batch with the given parameters; shapes as in `__call__`."""
        context = Context(parameters.keys, self._blur_rows, self._blur_columns)
        grid = self._sampling_grid(parameters, context)
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
        moved = F.grid_sample(labels[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
        for transform in INTENSITY:
            images = transform.apply(images, parameters.values[transform.name], context)
        return images, moved[:, 0].to(torch.uint8)

    def _sampling_grid(self, parameters: Parameters, context: Context) -> torch.Tensor:
        """Positions `(N, H, W, 2)` at which output pixels are read, in grid_sample's coordinates."""
        height, width = self.size
        x = torch.arange(width, device=self.device) - (width - 1) / 2
        y = (torch.arange(height, device=self.device) - (height - 1) / 2)[:, None]
        # (1, 2, H, W) in pixels from the centre
        positions = torch.stack([x.expand(height, width), y.expand(height, width)])[None]
        for transform in SPATIAL:
            positions = transform.apply(positions, parameters.values[transform.name], context)
        return positions.permute(0, 2, 3, 1)
