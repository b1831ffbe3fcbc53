"""Augmentation of a whole batch on its device.

The random numbers of a sample are a function of (seed, epoch, sample): `draw_parameters` draws them on the host with a
counter-based generator, so batch size, number of processes and restarts change nothing. `Augmenter` then applies all
transforms of `TRANSFORMS` in a few batched operations; image and label go through one resampling grid. There is no
left-right flip: left and right kidney are different classes. kornia has most of these transforms, with random numbers
that depend on the batch.
"""

import numpy as np
import torch
import torch.nn.functional as F

from attunet.config import AugmentConfig
from attunet.loading.transform import Context, Sample
from attunet.loading.transforms import INTENSITY, MIN_UNIFORMS, SPATIAL, TRANSFORMS
from attunet.loading.transforms.low_resolution import low_resolution_table

# Parameters of a batch by transform, float32 (N, ...), and under "keys" int64 (N,) for random noise on the device.
Parameters = dict[str, torch.Tensor]


def draw_parameters(
    config: AugmentConfig, *, seed: int, epochs: np.ndarray, samples: np.ndarray, size: tuple[int, int]
) -> Parameters:
    """Draw the parameters of samples, on the CPU.

    Args:
        epochs, samples: `(N,)`, the epoch and the number of each sample.
        size: `(H, W)` of the slices.

    Example:
        >>> epochs, samples = np.zeros(4, int), np.arange(4)
        >>> parameters = draw_parameters(AugmentConfig(), seed=0, epochs=epochs, samples=samples, size=(256, 256))
    """
    counters = ([0, 0, sample + 1, epoch] for epoch, sample in zip(epochs, samples, strict=True))
    generators = [np.random.Generator(np.random.Philox(key=seed, counter=counter)) for counter in counters]
    num_uniforms = max(MIN_UNIFORMS, sum(transform.uniforms for transform in TRANSFORMS.values()))
    num_normals = sum(transform.normals for transform in TRANSFORMS.values())
    uniform = np.stack([g.random(num_uniforms) for g in generators])
    normal = np.stack([g.standard_normal(num_normals) for g in generators])
    keys = np.stack([g.integers(0, 2**31) for g in generators])
    parameters, column, normal_column = {"keys": torch.from_numpy(keys.astype(np.int64))}, 0, 0
    for name, transform in TRANSFORMS.items():
        own = Sample(
            uniform[:, column + 1 : column + transform.uniforms],
            normal[:, normal_column : normal_column + transform.normals],
            size,
        )
        drawn = transform.draw(config, own)
        applied = uniform[:, column] < getattr(config, f"{name}_probability")
        chosen = np.where(applied.reshape(-1, *[1] * (drawn.ndim - 1)), drawn, transform.neutral)
        parameters[name] = torch.from_numpy(np.ascontiguousarray(chosen, dtype=np.float32))
        column, normal_column = column + transform.uniforms, normal_column + transform.normals
    return parameters


class Augmenter:
    """Applies drawn parameters to batches of slices of one size `(H, W)`."""

    def __init__(self, config: AugmentConfig, size: tuple[int, int], device: torch.device) -> None:
        self.config, self.size, self.device = config, size, device
        self._blur_rows = low_resolution_table(size[0], config.low_resolution).to(device)
        self._blur_columns = low_resolution_table(size[1], config.low_resolution).to(device)

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, *, seed: int, epochs: np.ndarray, samples: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment images `(N, C, H, W)` float32 and labels `(N, H, W)` uint8; the rest as for `draw_parameters`."""
        if not self.config.enabled:
            return images, labels
        parameters = draw_parameters(self.config, seed=seed, epochs=epochs, samples=samples, size=self.size)
        on_device = {name: value.to(self.device, non_blocking=True) for name, value in parameters.items()}
        return self.apply(images, labels, on_device)

    def apply(
        self, images: torch.Tensor, labels: torch.Tensor, parameters: Parameters
    ) -> tuple[torch.Tensor, torch.Tensor]:
        context = Context(parameters["keys"], self._blur_rows, self._blur_columns)
        grid = self._sampling_grid(parameters, context)
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
        moved = F.grid_sample(labels[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
        for name in INTENSITY:
            images = TRANSFORMS[name].apply(images, parameters[name], context)
        return images, moved[:, 0].to(torch.uint8)

    def _sampling_grid(self, parameters: Parameters, context: Context) -> torch.Tensor:
        """Positions `(N, H, W, 2)` at which output pixels are read, in grid_sample's coordinates."""
        height, width = self.size
        x = torch.arange(width, device=self.device) - (width - 1) / 2
        y = (torch.arange(height, device=self.device) - (height - 1) / 2)[:, None]
        # (1, 2, H, W) in pixels from the centre
        positions = torch.stack([x.expand(height, width), y.expand(height, width)])[None]
        for name in SPATIAL:
            positions = TRANSFORMS[name].apply(positions, parameters[name], context)
        return positions.permute(0, 2, 3, 1)
