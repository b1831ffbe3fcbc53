"""A brightness shift."""

import numpy as np
import torch

from attunet.config import AugmentConfig
from attunet.loading.transform import Context, Sample, Transform, column


def _draw(config: AugmentConfig, sample: Sample) -> np.ndarray:
    return sample.between(0, -config.brightness, config.brightness)


def _apply(images: torch.Tensor, shift: torch.Tensor, context: Context) -> torch.Tensor:
    return images + column(shift)


TRANSFORM = Transform(_draw, _apply)
