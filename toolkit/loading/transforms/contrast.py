"""A change of contrast."""

import numpy as np
import torch

from attunet.config import AugmentConfig
from attunet.loading.transform import Context, Sample, Transform, column


def _draw(config: AugmentConfig, sample: Sample) -> np.ndarray:
    return sample.log_between(0, *config.contrast)


def _apply(images: torch.Tensor, factor: torch.Tensor, context: Context) -> torch.Tensor:
    mean = images.mean((2, 3), keepdim=True)
    return mean + (images - mean) * column(factor)


TRANSFORM = Transform(_draw, _apply, neutral=1.0)
