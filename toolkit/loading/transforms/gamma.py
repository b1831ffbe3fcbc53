"""A gamma curve on the slice's own range."""

import numpy as np
import torch

from attunet.config import AugmentConfig
from attunet.loading.transform import Context, Sample, Transform, column


def _draw(config: AugmentConfig, sample: Sample) -> np.ndarray:
    return sample.log_between(0, *config.gamma)


def _apply(images: torch.Tensor, exponent: torch.Tensor, context: Context) -> torch.Tensor:
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    span = (high - low).clamp_min(1e-6)
    return low + span * ((images - low) / span).clamp(0, 1) ** column(exponent)


TRANSFORM = Transform(_draw, _apply, neutral=1.0)
