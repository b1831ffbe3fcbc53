"""Augmentation of a whole batch on its device.

What happens to a sample is a function of (seed, epoch, sample): `draw_parameters` draws it on the host with a counter-based
generator, so batch size, process count and restarts change nothing. `Augmenter` then applies it in a few batched operations; image
and label go through one resampling grid. There is no left-right flip: left and right kidney are different classes.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from attunet.config import AugmentConfig

ELASTIC_NODES = 7  # per side of the coarse displacement field
BIAS_NODES = 4
ELASTIC_MAGNITUDE = 0.012  # standard deviation of the coarse displacement, as a fraction of the side
SHIFT_FRACTION = 0.08  # largest shift in either direction, as a fraction of the side
RESOLUTIONS = 8  # steps in which the factor of the low-resolution transform is quantised


@dataclass(frozen=True)
class Parameters:
    """One row per sample; every transform that is not drawn has its neutral value.

    affine: `(N, 2, 3)`, output to input, in pixels about the centre (x, y); elastic: `(N, 2, n, n)` displacements at coarse nodes as a
    share of the side; brightness: added; contrast: factor on the deviation from the mean; gamma: exponent on the slice's own range;
    bias: `(N, 1, n, n)` log of the field at coarse nodes; noise: standard deviation; noise_key: int64; resolution: table index.
    """

    affine: torch.Tensor
    elastic: torch.Tensor
    brightness: torch.Tensor
    contrast: torch.Tensor
    gamma: torch.Tensor
    bias: torch.Tensor
    noise: torch.Tensor
    noise_key: torch.Tensor
    resolution: torch.Tensor

    def to(self, device: torch.device) -> "Parameters":
        return Parameters(*(value.to(device, non_blocking=True) for value in vars(self).values()))


def draw_parameters(config: AugmentConfig, *, seed: int, epochs: np.ndarray, samples: np.ndarray, size: tuple[int, int]) -> Parameters:
    """Parameters of the samples `(N,)` in their epochs `(N,)` for slices of `size` `(H, W)`."""
    generators = [np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, s + 1, e])) for e, s in zip(epochs, samples, strict=True)]
    uniform = np.stack([g.random(20) for g in generators])
    normal = np.stack([g.standard_normal(2 * ELASTIC_NODES**2 + BIAS_NODES**2) for g in generators])
    keys = np.stack([g.integers(0, 2**31) for g in generators])
    count = len(generators)

    def chosen(column: int, probability: float, value: np.ndarray, neutral: float) -> np.ndarray:
        shape = (count,) + (1,) * (value.ndim - 1)
        return np.where((uniform[:, column] < probability).reshape(shape), value, neutral)

    def between(column: int, low: float, high: float) -> np.ndarray:
        return low + (high - low) * uniform[:, column]

    def log_between(column: int, low: float, high: float) -> np.ndarray:
        return np.exp(between(column, np.log(low), np.log(high)))

    p = config.spatial_probability
    angle = chosen(0, p, np.deg2rad(between(1, -config.rotation_degrees, config.rotation_degrees)), 0.0)
    zoom = 1 / chosen(0, p, log_between(2, *config.scale), 1.0)
    shift = np.stack([between(3 + i, -SHIFT_FRACTION, SHIFT_FRACTION) * size[1 - i] for i in range(2)], axis=1)
    shift = chosen(0, p, shift, 0.0)
    affine = np.empty((count, 2, 3))
    affine[:, 0, 0], affine[:, 0, 1] = zoom * np.cos(angle), -zoom * np.sin(angle)
    affine[:, 1, 0], affine[:, 1, 1] = zoom * np.sin(angle), zoom * np.cos(angle)
    affine[:, :, 2] = shift

    nodes = 2 * ELASTIC_NODES**2
    elastic = normal[:, :nodes].reshape(count, 2, ELASTIC_NODES, ELASTIC_NODES) * ELASTIC_MAGNITUDE
    bias = normal[:, nodes:].reshape(count, 1, BIAS_NODES, BIAS_NODES) * config.bias_field
    resolution = 1 + np.floor(uniform[:, 14] * RESOLUTIONS)

    def tensor(value: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32))

    return Parameters(
        affine=tensor(affine),
        elastic=tensor(chosen(5, config.elastic_probability, elastic, 0.0)),
        brightness=tensor(chosen(6, config.brightness_probability, between(7, -config.brightness, config.brightness), 0.0)),
        contrast=tensor(chosen(8, config.contrast_probability, log_between(9, *config.contrast), 1.0)),
        gamma=tensor(chosen(10, config.gamma_probability, log_between(11, *config.gamma), 1.0)),
        bias=tensor(chosen(12, config.bias_field_probability, bias, 0.0)),
        noise=tensor(chosen(15, config.noise_probability, between(16, *config.noise), 0.0)),
        noise_key=torch.from_numpy(keys.astype(np.int64)),
        resolution=torch.from_numpy(chosen(13, config.low_resolution_probability, resolution, 0).astype(np.int64)),
    )


class Augmenter:
    """Applies drawn parameters to batches of one slice size; holds the tables that do not change."""

    def __init__(self, config: AugmentConfig, size: tuple[int, int], device: torch.device) -> None:
        self.config, self.size, self.device = config, size, device
        self._blur_rows = _low_resolution_table(size[0], config.low_resolution).to(device)
        self._blur_columns = _low_resolution_table(size[1], config.low_resolution).to(device)

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, *, seed: int, epochs: np.ndarray, samples: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augmented images `(N, C, H, W)` float32 and labels `(N, H, W)` uint8."""
        if not self.config.enabled:
            return images, labels
        parameters = draw_parameters(self.config, seed=seed, epochs=epochs, samples=samples, size=self.size).to(self.device)
        return self.apply(images, labels, parameters)

    def apply(self, images: torch.Tensor, labels: torch.Tensor, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
        grid = _sampling_grid(parameters, self.size)
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
        moved = F.grid_sample(labels[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False)
        images = self._blur_rows[parameters.resolution][:, None] @ images @ self._blur_columns[parameters.resolution][:, None].mT
        return _change_intensities(images, parameters), moved[:, 0].to(torch.uint8)


def _sampling_grid(parameters: Parameters, size: tuple[int, int]) -> torch.Tensor:
    """Where each output pixel is read, `(N, H, W, 2)` in grid_sample's coordinates (align_corners=False)."""
    height, width = size
    device = parameters.affine.device
    x = torch.arange(width, device=device) - (width - 1) / 2
    y = (torch.arange(height, device=device) - (height - 1) / 2)[:, None]
    # Written out, not as a matrix product: products round differently for different batch sizes.
    factor_x, factor_y, shift = parameters.affine[:, :, :, None, None].unbind(2)
    where = factor_x * x + factor_y * y + shift  # (N, 2, H, W) in pixels
    half = torch.tensor([width / 2, height / 2], device=device)[:, None, None]
    elastic = F.interpolate(parameters.elastic, size=size, mode="bicubic", align_corners=True)
    return (where / half + 2 * elastic).permute(0, 2, 3, 1)


def _change_intensities(images: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    def column(values: torch.Tensor) -> torch.Tensor:
        return values[:, None, None, None]

    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    span = (high - low).clamp_min(1e-6)
    images = low + span * ((images - low) / span).clamp(0, 1) ** column(parameters.gamma)
    field = F.interpolate(parameters.bias, size=images.shape[2:], mode="bicubic", align_corners=True).exp()
    images = low + (images - low) * field  # multiplicative above air, which stays dark
    mean = images.mean((2, 3), keepdim=True)
    images = mean + (images - mean) * column(parameters.contrast) + column(parameters.brightness)
    return images + column(parameters.noise) * _gaussian_noise(parameters.noise_key, images.shape)


def _gaussian_noise(keys: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Standard normal noise `(N, C, H, W)` that is a function of each sample's key: Box-Muller on a 32-bit integer hash."""
    count = shape[1] * shape[2] * shape[3]
    index = torch.arange((count + 1) // 2, device=keys.device)
    first = _hash32(index[None] * 2 + keys[:, None])
    second = _hash32(first + 0x9E3779B9)
    radius = torch.sqrt(-2 * torch.log((first.float() + 1) * 2.0**-32))
    angle = second.float() * (2 * torch.pi * 2.0**-32)
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, :count].reshape(shape)


def _hash32(value: torch.Tensor) -> torch.Tensor:
    """32-bit finaliser (Wellons' "lowbias32") in int64 arithmetic, the same on every device."""
    mask = 0xFFFFFFFF
    value = value & mask
    value = ((value ^ (value >> 16)) * 0x7FEB352D) & mask
    value = ((value ^ (value >> 15)) * 0x846CA68B) & mask
    return value ^ (value >> 16)


def _low_resolution_table(length: int, factors: tuple[float, float]) -> torch.Tensor:
    """Matrices `(RESOLUTIONS + 1, length, length)` that sample a line down and up again; index 0 leaves it."""
    table = [torch.eye(length)]
    for step in range(RESOLUTIONS):
        factor = factors[0] + (factors[1] - factors[0]) * (step + 0.5) / RESOLUTIONS
        eye = torch.eye(length)[None, None]
        small = F.interpolate(eye, size=(max(1, round(length / factor)), length), mode="bilinear", antialias=True)
        table.append(F.interpolate(small, size=(length, length), mode="bilinear")[0, 0])
    return torch.stack(table)
