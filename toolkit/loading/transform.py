"""The interface of an augmentation: what it draws for a sample, and how it changes a batch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from attunet.config import AugmentConfig


@dataclass(frozen=True)
class Sample:
    """The input of `Transform.draw`: random numbers of N samples.

    Args:
        uniform: `(N, uniforms - 1)` from 0 to 1; the transform's first number decides if it is applied.
        normal: `(N, normals)`, standard normal.
        size: `(H, W)` of the slices.
    """

    uniform: np.ndarray
    normal: np.ndarray
    size: tuple[int, int]

    def between(self, column: int, low: float, high: float) -> np.ndarray:
        """Uniform numbers `(N,)` from `low` to `high`."""
        return np.asarray(low + (high - low) * self.uniform[:, column])

    def log_between(self, column: int, low: float, high: float) -> np.ndarray:
        """Numbers `(N,)` from `low` to `high` whose logarithm is uniform."""
        return np.asarray(np.exp(self.between(column, np.log(low), np.log(high))))


@dataclass(frozen=True)
class Context:
    """Further input of `Transform.apply`.

    Args:
        keys: int64 `(N,)`, a random number per sample.
        blur_rows, blur_columns: tables of `low_resolution_table` for the two axes.
    """

    keys: torch.Tensor
    blur_rows: torch.Tensor
    blur_columns: torch.Tensor


@dataclass(frozen=True)
class Transform:
    """One augmentation, `TRANSFORM` of the module NAME. `NAME_probability` of the configuration is its probability per
    sample.

    Args:
        draw: configuration and random numbers to the parameters `(N, ...)`.
        apply: images `(N, C, H, W)` and parameters to images; of a spatial transform, positions `(N, 2, H, W)` and
            parameters to positions, x first, from -1 to 1 as for grid_sample (the first spatial transform gets them in
            pixels from the centre).
        neutral: parameter of the samples that it is not applied to.
        uniforms: uniform random numbers per sample, with the one that decides.
        normals: normal random numbers per sample.
        spatial: True for a transform of positions, which moves image and label together.
    """

    draw: Callable[[AugmentConfig, Sample], np.ndarray]
    apply: Callable[[torch.Tensor, torch.Tensor, Context], torch.Tensor]
    neutral: float | np.ndarray = 0.0
    uniforms: int = 2
    normals: int = 0
    spatial: bool = False


def column(values: torch.Tensor) -> torch.Tensor:
    """Numbers `(N,)` as `(N, 1, 1, 1)`."""
    return values[:, None, None, None]
