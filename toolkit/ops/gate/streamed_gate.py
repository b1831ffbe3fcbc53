"""Launches of the kernels for wide gates in 16 bits. Imported on first use, since it imports Triton."""

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from attunet.ops.gate import streamed_kernels as kernels
from attunet.ops.gate.reference import GateParameters
from attunet.ops.memory_format import as_rows, copy_rows
from attunet.ops.triton_device import num_multiprocessors

MAX_HIDDEN = 256  # hidden features that a tile's accumulators hold
FINISH_TILE = (64, 32)  # parts and columns of a program that adds up parts


@dataclass(frozen=True)
class Tiling:
    """Rows of a tile, channels of a step, stages of loading ahead, warps."""

    rows: int
    channels: int
    stages: int
    warps: int


# Hidden features in a block -> (forward, backward, weight gradient), the channels of the last being those of a program.
# Chosen by the compiler's report for sm_80 and sm_90: no spills, shared memory that sm_80 has.
TILINGS = {
    16: (Tiling(128, 64, 3, 4), Tiling(128, 64, 3, 4), Tiling(64, 128, 3, 4)),
    32: (Tiling(128, 64, 3, 4), Tiling(128, 64, 3, 4), Tiling(64, 128, 3, 4)),
    64: (Tiling(128, 64, 3, 8), Tiling(128, 64, 3, 8), Tiling(64, 128, 3, 8)),
    128: (Tiling(128, 64, 3, 8), Tiling(128, 64, 3, 8), Tiling(64, 128, 3, 8)),
    256: (Tiling(128, 64, 2, 8), Tiling(64, 64, 2, 8), Tiling(64, 128, 2, 8)),
}


def fits(x: Tensor, hidden: int) -> bool:
    """True if the kernels can compute a gate of x with so many hidden features."""
    return x.element_size() == 2 and hidden <= MAX_HIDDEN


def block_of(width: int) -> int:
    """The block that holds so many channels or hidden features; 16 is the least that a product takes."""
    return max(16, int(triton.next_power_of_2(width)))


def _constants(x: Tensor, g: Tensor, hidden: int, tiling: Tiling) -> dict[str, int]:
    widths = {"C": x.shape[1], "G": g.shape[1], "F": hidden, "BLOCK_F": block_of(hidden)}
    tile = {"BLOCK_P": tiling.rows, "BLOCK_K": tiling.channels, "STAGES": tiling.stages, "num_warps": tiling.warps}
    return widths | tile


def forward(x: Tensor, g: Tensor, parameters: GateParameters, out: Tensor, alpha: Tensor) -> None:
    """Fills out and alpha.

    Example:
        >>> forward(x, g, parameters, out := x.new_empty(n, c + g_channels, h, w), alpha)  # doctest: +SKIP
    """
    rows_x, rows_g, rows_out = as_rows(x), as_rows(g), as_rows(out)
    hidden = len(parameters.bias)
    tiling, _, _ = TILINGS[block_of(hidden)]
    kernels.streamed_forward[(triton.cdiv(len(rows_x), tiling.rows),)](
        rows_x, rows_g, *parameters, rows_out, alpha, len(rows_x), **_constants(x, g, hidden, tiling)
    )
    copy_rows(rows_out, out)


def backward(
    grad_out: Tensor, grad_alpha: Tensor | None, x: Tensor, g: Tensor, parameters: GateParameters,
    grad_x: Tensor, grad_g: Tensor,
) -> GateParameters:  # fmt: skip
    """Fills grad_x and grad_g; returns the gradients of the parameters in float32.

    Example:
        >>> backward(grad_out, None, x, g, parameters, torch.empty_like(x), torch.empty_like(g)).bias  # doctest: +SKIP
    """
    rows_x, rows_g, rows_grad = as_rows(x), as_rows(g), as_rows(grad_out)
    rows_grad_x, rows_grad_g = as_rows(grad_x), as_rows(grad_g)
    hidden, count = len(parameters.bias), len(rows_x)
    _, tiling, _ = TILINGS[block_of(hidden)]
    tiles = triton.cdiv(count, tiling.rows)
    grad_hidden = x.new_empty((count, hidden))
    partial = x.new_empty((tiles, 2 * hidden + 1), dtype=torch.float32)
    kernels.streamed_backward[(tiles,)](
        rows_grad, grad_alpha, rows_x, rows_g, *parameters, rows_grad_x, rows_grad_g, grad_hidden, partial, count,
        **_constants(x, g, hidden, tiling),
    )  # fmt: skip
    copy_rows(rows_grad_x, grad_x)
    copy_rows(rows_grad_g, grad_g)
    return GateParameters(*_weight_gradients(rows_x, rows_g, grad_hidden), *_vector_gradients(partial, hidden))


def _weight_gradients(rows_x: Tensor, rows_g: Tensor, grad_hidden: Tensor) -> tuple[Tensor, Tensor]:
    """grad_hidden^T x (F, C) and grad_hidden^T g (F, G)."""
    (count, hidden), channels, gating = grad_hidden.shape, rows_x.shape[1], rows_g.shape[1]
    _, _, tiling = TILINGS[block_of(hidden)]
    tiles = triton.cdiv(count, tiling.rows)
    columns, columns_g = (triton.cdiv(width, tiling.channels) for width in (channels, gating))
    programs = min(tiles, max(1, num_multiprocessors(rows_x) // (columns + columns_g)))
    partial_x, partial_g = (
        rows_x.new_empty((programs, hidden, width), dtype=torch.float32) for width in (channels, gating)
    )
    kernels.streamed_weight_gradient[(programs, columns + columns_g)](
        rows_x, rows_g, grad_hidden, partial_x, partial_g, count, tiles,
        C=channels, G=gating, F=hidden, COLUMNS=columns,
        BLOCK_P=tiling.rows, BLOCK_C=tiling.channels, BLOCK_F=block_of(hidden),
        STAGES=tiling.stages, num_warps=tiling.warps,
    )  # fmt: skip
    return partial_x.sum(0), partial_g.sum(0)


def _vector_gradients(partial: Tensor, hidden: int) -> tuple[Tensor, Tensor, Tensor]:
    grad_bias, grad_psi_weight, grad_psi_bias = (partial.new_empty(size) for size in (hidden, hidden, 1))
    rows, columns = FINISH_TILE
    kernels.streamed_vector_finish[(triton.cdiv(2 * hidden + 1, columns),)](
        partial, grad_bias, grad_psi_weight, grad_psi_bias, len(partial),
        F=hidden, BLOCK_R=rows, BLOCK_C=columns, num_warps=4,
    )  # fmt: skip
    return grad_bias, grad_psi_weight, grad_psi_bias
