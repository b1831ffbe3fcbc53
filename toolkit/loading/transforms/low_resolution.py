"""A lower resolution, sampled down and up again."""

import numpy as np
import torch
import torch.nn.functional as F

from attunet.config import AugmentConfig
from attunet.loading.transform import Context, Sample, Transform

RESOLUTIONS = 8  # steps in which the factor is quantised


def _draw(config: AugmentConfig, sample: Sample) -> np.ndarray:
    return np.asarray(1 + np.floor(sample.uniform[:, 0] * RESOLUTIONS))


def _apply(images: torch.Tensor, index: torch.Tensor, context: Context) -> torch.Tensor:
    rows = index.long()
    return context.blur_rows[rows][:, None] @ images @ context.blur_columns[rows][:, None].mT


def low_resolution_table(length: int, factors: tuple[float, float]) -> torch.Tensor:
    """Matrices `(RESOLUTIONS + 1, length, length)` that sample a line down and up again; index 0 is the identity."""
    table = [torch.eye(length)]
    for step in range(RESOLUTIONS):
        factor = factors[0] + (factors[1] - factors[0]) * (step + 0.5) / RESOLUTIONS
        eye = torch.eye(length)[None, None]
        small = F.interpolate(eye, size=(max(1, round(length / factor)), length), mode="bilinear", antialias=True)
        table.append(F.interpolate(small, size=(length, length), mode="bilinear")[0, 0])
    return torch.stack(table)


TRANSFORM = Transform(_draw, _apply)
