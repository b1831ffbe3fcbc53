"""An elastic deformation."""

import numpy as np
import torch
import torch.nn.functional as F

from attunet.config import AugmentConfig
from attunet.loading.transform import Context, Sample, Transform

NODES = 7  # per side of the coarse displacement field
MAGNITUDE = 0.012  # standard deviation of the coarse displacement, as a fraction of the side


def _draw(config: AugmentConfig, sample: Sample) -> np.ndarray:
    """Displacements `(N, 2, n, n)` at coarse nodes, as a fraction of the side."""
    return sample.normal.reshape(-1, 2, NODES, NODES) * MAGNITUDE


def _apply(positions: torch.Tensor, displacement: torch.Tensor, context: Context) -> torch.Tensor:
    return positions + 2 * F.interpolate(displacement, size=positions.shape[2:], mode="bicubic", align_corners=True)


TRANSFORM = Transform(_draw, _apply, uniforms=1, normals=2 * NODES**2, spatial=True)
