"""Rotation, scale and shift together."""

import numpy as np
import torch

from attunet.config import AugmentConfig
from attunet.loading.transform import Context, Sample, Transform

SHIFT_FRACTION = 0.08  # largest shift in either direction, as a fraction of the side


def _draw(config: AugmentConfig, sample: Sample) -> np.ndarray:
    """Affine matrices `(N, 2, 3)` from output to input, in pixels from the centre, x first."""
    angle = np.deg2rad(sample.between(0, -config.rotation_degrees, config.rotation_degrees))
    zoom = 1 / sample.log_between(1, *config.scale)
    affine = np.empty((len(angle), 2, 3))
    affine[:, 0, 0], affine[:, 0, 1] = zoom * np.cos(angle), -zoom * np.sin(angle)
    affine[:, 1, 0], affine[:, 1, 1] = zoom * np.sin(angle), zoom * np.cos(angle)
    affine[:, :, 2] = np.stack(
        [sample.between(2 + i, -SHIFT_FRACTION, SHIFT_FRACTION) * sample.size[1 - i] for i in range(2)], axis=1
    )
    return affine


def _apply(positions: torch.Tensor, affine: torch.Tensor, context: Context) -> torch.Tensor:
    # Written out, not as a matrix product: products round differently for different batch sizes.
    factor_x, factor_y, shift = affine[:, :, :, None, None].unbind(2)
    height, width = positions.shape[2:]
    # Filled on the device: a tensor of Python numbers would be copied there, which a CUDA graph cannot capture.
    half = torch.cat([positions.new_full((1, 1, 1), width / 2), positions.new_full((1, 1, 1), height / 2)])
    return (factor_x * positions[:, :1] + factor_y * positions[:, 1:] + shift) / half


TRANSFORM = Transform(_draw, _apply, neutral=np.eye(2, 3), uniforms=5, spatial=True)
