"""Launches of the Triton kernels of batch norm with ReLU: grids and tilings.
Imported on first use, since it imports Triton.

Every x is channels-last, so that it is a view of rows (N * H * W, C).
"""

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from attunet.ops.memory_format import as_rows
from attunet.ops.norm import norm_kernels as kernels
from attunet.ops.triton_device import num_multiprocessors, on_device_of


# Measured on an H200 with 64 x 64 x 256 x 256 values in bfloat16: reductions read at 95 %, the others move data at 97
# and 100 % of the rate of a copy. With 8 warps for a tile of 8 KB the gradient reaches 66 %; with 4 programs of 8 KB
# reductions leave twice the parts.
@dataclass(frozen=True)
class Tiling:
    """tile_bytes: of the operands that a tile reads. warps: of a program."""

    tile_bytes: int
    warps: int


ELEMENTWISE = Tiling(8192, 4)
REDUCTION = Tiling(16384, 8)
ROW_BYTES = 128  # of a tile: a line of the cache, which a warp loads whole
PROGRAMS_PER_MULTIPROCESSOR = 2  # that the reductions keep resident
FINISH_TILE = (128, 16)  # parts and channels of a program that combines the parts

Vectors = tuple[Tensor, Tensor, Tensor, Tensor]  # weight, bias, mean and variance, each (C,)


@dataclass(frozen=True)
class Grid:
    """Rows of x, tiles along them, columns of tiles along the channels; the block sizes and warps of a tile."""

    rows: int
    tiles: int
    columns: int
    block_rows: int
    block_channels: int
    warps: int

    @classmethod
    def of(cls, x: Tensor, tiling: Tiling, operands: int = 1) -> "Grid":
        """The grid for a kernel that reads x, or x and another tensor of its shape (two operands)."""
        rows, channels = x.numel() // x.shape[1], x.shape[1]
        block_channels = min(ROW_BYTES // x.element_size(), max(4, triton.next_power_of_2(channels)))
        block_rows = tiling.tile_bytes // operands // x.element_size() // block_channels
        tiles, columns = triton.cdiv(rows, block_rows), triton.cdiv(channels, block_channels)
        return cls(rows, tiles, columns, block_rows, block_channels, tiling.warps)

    def programs(self, x: Tensor) -> int:
        """Programs that share a column of tiles in a reduction."""
        return min(self.tiles, max(1, PROGRAMS_PER_MULTIPROCESSOR * num_multiprocessors(x) // self.columns))

    def constants(self, x: Tensor) -> dict[str, int]:
        return {"C": x.shape[1], "BLOCK_P": self.block_rows, "BLOCK_C": self.block_channels, "num_warps": self.warps}


def statistics(x: Tensor) -> Tensor:
    """Count, mean and sum of squared deviations, (parts, 3, C) float32; `combine` makes one of the parts."""
    grid = Grid.of(x, REDUCTION)
    partial = x.new_empty((grid.programs(x), 3, x.shape[1]), dtype=torch.float32)
    with on_device_of(x):
        kernels.norm_statistics[(len(partial), grid.columns)](
            as_rows(x), partial, grid.rows, grid.tiles, **grid.constants(x)
        )
    return partial


def combine(
    partial: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, momentum: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance (C,), count (1,) of statistics (parts, 3, C); running ones are updated in place."""
    parts, _, channels = partial.shape
    mean, var, count = (partial.new_empty(size) for size in (channels, channels, 1))
    with on_device_of(partial):
        kernels.norm_finish[(triton.cdiv(channels, FINISH_TILE[1]),)](
            partial, mean, var, count, running_mean, running_var, parts, momentum, **_finish_constants(channels)
        )
    return mean, var, count


def normalise(x: Tensor, vectors: Vectors, eps: float) -> Tensor:
    """relu((x - mean) / sqrt(var + eps) * weight + bias), channels-last."""
    out, grid = torch.empty_like(x), Grid.of(x, ELEMENTWISE)
    if x.numel():
        with on_device_of(x):
            kernels.norm_apply[(grid.tiles, grid.columns)](
                as_rows(x), *vectors, as_rows(out), grid.rows, eps, **grid.constants(x)
            )
    return out


def gradient_sums(grad_out: Tensor, x: Tensor, vectors: Vectors, eps: float) -> tuple[Tensor, Tensor]:
    """The gradients of weight and bias, (C,) float32: the sums that the gradient of x needs too."""
    grid, channels = Grid.of(x, REDUCTION, operands=2), x.shape[1]
    grad_weight, grad_bias = (x.new_zeros(channels, dtype=torch.float32) for _ in range(2))
    if x.numel():
        partial = x.new_empty((grid.programs(x), 2, channels), dtype=torch.float32)
        with on_device_of(x):
            kernels.norm_gradient_sums[(len(partial), grid.columns)](
                as_rows(grad_out), as_rows(x), *vectors, partial, grid.rows, grid.tiles, eps, **grid.constants(x)
            )
            kernels.norm_gradient_finish[(triton.cdiv(channels, FINISH_TILE[1]),)](
                partial, grad_weight, grad_bias, len(partial), **_finish_constants(channels)
            )
    return grad_weight, grad_bias


def gradient(
    grad_out: Tensor, x: Tensor, vectors: Vectors, eps: float, sums: tuple[Tensor, Tensor, Tensor] | None
) -> Tensor:
    """The gradient of x. sums: count (1,), sum of dy and of dy * normalised x, each (C,); None for fixed statistics.

    Example:
        >>> gradient(grad_out, x, (weight, bias, running_mean, running_var), 1e-5, None)  # doctest: +SKIP
    """
    grad_x, grid = torch.empty_like(x), Grid.of(x, ELEMENTWISE, operands=2)
    if x.numel():
        with on_device_of(x):
            kernels.norm_gradient[(grid.tiles, grid.columns)](
                as_rows(grad_out), as_rows(x), *vectors, *(sums or (None, None, None)), as_rows(grad_x),
                grid.rows, eps, **grid.constants(x),
            )  # fmt: skip
    return grad_x


def _finish_constants(channels: int) -> dict[str, int]:
    return {"C": channels, "BLOCK_R": FINISH_TILE[0], "BLOCK_C": FINISH_TILE[1], "num_warps": 4}
