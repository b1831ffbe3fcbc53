"""Gaussian noise."""

import numpy as np
import torch

from attunet.config import AugmentConfig
from attunet.loading.transform import Context, Sample, Transform, column


def _draw(config: AugmentConfig, sample: Sample) -> np.ndarray:
    return sample.between(0, *config.noise)


def _apply(images: torch.Tensor, deviation: torch.Tensor, context: Context) -> torch.Tensor:
    return images + column(deviation) * gaussian_noise(context.keys, images.shape)


def gaussian_noise(keys: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Standard normal noise `(N, C, H, W)` as a function of each sample's key: Box-Muller on a 32-bit integer hash."""
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


TRANSFORM = Transform(_draw, _apply)
