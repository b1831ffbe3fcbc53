"""The transforms of augmentation: what each draws for a sample, and how it changes a batch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from attunet.config import AugmentConfig

ELASTIC_NODES = 7  # per side of the coarse displacement field
ELASTIC_MAGNITUDE = 0.012  # standard deviation of the coarse displacement, as a fraction of the side
SHIFT_FRACTION = 0.08  # largest shift in either direction, as a fraction of the side
BIAS_NODES = 4  # per side of the coarse bias field
RESOLUTIONS = 8  # steps in which the factor of the low-resolution transform is quantised
# Uniform random numbers drawn per sample, more than the table uses: a new transform with uniforms alone leaves the
# draws of the others as they are. A transform with normals, or one beyond this number, changes them.
MIN_UNIFORMS = 20


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
    """One augmentation. The field `NAME_probability` of the configuration is its probability per sample.

    Args:
        name: of the transform.
        draw: configuration and random numbers to the parameters `(N, ...)`.
        apply: images `(N, C, H, W)` and parameters to images; of a spatial transform, positions `(N, 2, H, W)` and
            parameters to positions, x first, from -1 to 1 as for grid_sample (the first spatial transform gets them in
            pixels from the centre).
        neutral: parameter of the samples that it is not applied to.
        uniforms: uniform random numbers per sample, with the one that decides.
        normals: normal random numbers per sample.
        spatial: True for a transform of positions, which moves image and label together.
    """

    name: str
    draw: Callable[[AugmentConfig, Sample], np.ndarray]
    apply: Callable[[torch.Tensor, torch.Tensor, Context], torch.Tensor]
    neutral: float | np.ndarray = 0.0
    uniforms: int = 2
    normals: int = 0
    spatial: bool = False


def _draw_spatial(config: AugmentConfig, sample: Sample) -> np.ndarray:
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


def _apply_spatial(positions: torch.Tensor, affine: torch.Tensor, context: Context) -> torch.Tensor:
    # Written out, not as a matrix product: products round differently for different batch sizes.
    factor_x, factor_y, shift = affine[:, :, :, None, None].unbind(2)
    height, width = positions.shape[2:]
    # Filled on the device: a tensor of Python numbers would be copied there, which a CUDA graph cannot capture.
    half = torch.cat([positions.new_full((1, 1, 1), width / 2), positions.new_full((1, 1, 1), height / 2)])
    return (factor_x * positions[:, :1] + factor_y * positions[:, 1:] + shift) / half


def _draw_elastic(config: AugmentConfig, sample: Sample) -> np.ndarray:
    """Displacements `(N, 2, n, n)` at coarse nodes, as a fraction of the side."""
    return sample.normal.reshape(-1, 2, ELASTIC_NODES, ELASTIC_NODES) * ELASTIC_MAGNITUDE


def _apply_elastic(positions: torch.Tensor, displacement: torch.Tensor, context: Context) -> torch.Tensor:
    return positions + 2 * F.interpolate(displacement, size=positions.shape[2:], mode="bicubic", align_corners=True)


def _apply_gamma(images: torch.Tensor, exponent: torch.Tensor, context: Context) -> torch.Tensor:
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    span = (high - low).clamp_min(1e-6)
    return low + span * ((images - low) / span).clamp(0, 1) ** _column(exponent)


def _draw_bias_field(config: AugmentConfig, sample: Sample) -> np.ndarray:
    """Logarithm of the field at coarse nodes, `(N, 1, n, n)`."""
    return sample.normal.reshape(-1, 1, BIAS_NODES, BIAS_NODES) * config.bias_field


def _apply_bias_field(images: torch.Tensor, nodes: torch.Tensor, context: Context) -> torch.Tensor:
    low = images.amin((2, 3), keepdim=True)
    field = F.interpolate(nodes, size=images.shape[2:], mode="bicubic", align_corners=True).exp()
    return low + (images - low) * field  # multiplicative above air, which stays dark


def _apply_contrast(images: torch.Tensor, factor: torch.Tensor, context: Context) -> torch.Tensor:
    mean = images.mean((2, 3), keepdim=True)
    return mean + (images - mean) * _column(factor)


def _apply_low_resolution(images: torch.Tensor, index: torch.Tensor, context: Context) -> torch.Tensor:
    rows = index.long()
    return context.blur_rows[rows][:, None] @ images @ context.blur_columns[rows][:, None].mT


def _apply_noise(images: torch.Tensor, deviation: torch.Tensor, context: Context) -> torch.Tensor:
    return images + _column(deviation) * _gaussian_noise(context.keys, images.shape)


def _column(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]


def _gaussian_noise(keys: torch.Tensor, shape: torch.Size) -> torch.Tensor:
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


def low_resolution_table(length: int, factors: tuple[float, float]) -> torch.Tensor:
    """Matrices `(RESOLUTIONS + 1, length, length)` that sample a line down and up again; index 0 is the identity."""
    table = [torch.eye(length)]
    for step in range(RESOLUTIONS):
        factor = factors[0] + (factors[1] - factors[0]) * (step + 0.5) / RESOLUTIONS
        eye = torch.eye(length)[None, None]
        small = F.interpolate(eye, size=(max(1, round(length / factor)), length), mode="bilinear", antialias=True)
        table.append(F.interpolate(small, size=(length, length), mode="bilinear")[0, 0])
    return torch.stack(table)


# In the order in which random numbers are drawn: append new transforms, so that the others keep theirs.
TRANSFORMS = (
    Transform("spatial", _draw_spatial, _apply_spatial, neutral=np.eye(2, 3), uniforms=5, spatial=True),
    Transform("elastic", _draw_elastic, _apply_elastic, uniforms=1, normals=2 * ELASTIC_NODES**2, spatial=True),
    Transform(
        "brightness",
        lambda config, sample: sample.between(0, -config.brightness, config.brightness),
        lambda images, shift, context: images + _column(shift),
    ),
    Transform("contrast", lambda config, sample: sample.log_between(0, *config.contrast), _apply_contrast, neutral=1.0),
    Transform("gamma", lambda config, sample: sample.log_between(0, *config.gamma), _apply_gamma, neutral=1.0),
    Transform("bias_field", _draw_bias_field, _apply_bias_field, uniforms=1, normals=BIAS_NODES**2),
    Transform(
        "low_resolution", lambda config, sample: 1 + np.floor(sample.uniform[:, 0] * RESOLUTIONS), _apply_low_resolution
    ),
    Transform("noise", lambda config, sample: sample.between(0, *config.noise), _apply_noise),
)
SPATIAL = [transform for transform in TRANSFORMS if transform.spatial]
_ORDER = ["low_resolution", "gamma", "bias_field", "contrast", "brightness", "noise"]
# In the order in which they are applied: transforms that are not named come last.
INTENSITY = sorted(
    (transform for transform in TRANSFORMS if not transform.spatial),
    key=lambda transform: _ORDER.index(transform.name) if transform.name in _ORDER else len(_ORDER),
)
