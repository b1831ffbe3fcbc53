"""A smooth multiplicative field, as of a coil's sensitivity."""

import numpy as np
import torch
import torch.nn.functional as F

from attunet.config import AugmentConfig
from attunet.loading.transform import Context, Sample, Transform

NODES = 4  # per side of the coarse field


def _draw(config: AugmentConfig, sample: Sample) -> np.ndarray:
    """Logarithm of the field at coarse nodes, `(N, 1, n, n)`."""
    return sample.normal.reshape(-1, 1, NODES, NODES) * config.bias_field


def _apply(images: torch.Tensor, nodes: torch.Tensor, context: Context) -> torch.Tensor:
    low = images.amin((2, 3), keepdim=True)
    field = F.interpolate(nodes, size=images.shape[2:], mode="bicubic", align_corners=True).exp()
    return low + (images - low) * field  # multiplicative above air, which stays dark


TRANSFORM = Transform(_draw, _apply, uniforms=1, normals=NODES**2)
