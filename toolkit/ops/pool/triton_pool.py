"""Launches of the Triton kernels of 2x2 max pooling. Imported on first use, since it imports Triton.

Every tensor is channels-last, so that it is a view of rows (N * H * W, C).
"""

import torch
import triton
from torch import Tensor

from attunet.ops.memory_format import as_rows
from attunet.ops.pool import pool_kernels as kernels
from attunet.ops.triton_device import on_device_of

TILE_BYTES = 2048  # of the result: a 16-byte piece for each of 128 threads, and four of the input
ROW_BYTES = 128  # of a tile: a line of the cache
WARPS = 4


def forward(x: Tensor, *, with_index: bool) -> tuple[Tensor, Tensor | None]:
    """The largest value of each 2x2 window of x (N, C, H, W), and its place in the window (uint8) or None;
    both (N, C, H/2, W/2).
    """
    n, channels, height, width = x.shape
    out = _like(x, (n, channels, height // 2, width // 2), x.dtype)
    chosen = _like(x, tuple(out.shape), torch.uint8) if with_index else None
    if out.numel():
        with on_device_of(x):
            kernels.pool_forward[_grid(out)](
                as_rows(x), as_rows(out), None if chosen is None else as_rows(chosen), *_sizes(out), **_constants(out)
            )
    return out, chosen


def backward(grad_out: Tensor, chosen: Tensor) -> Tensor:
    """The gradient of x (N, C, H, W) from that of the result and the places of its values."""
    n, channels, height, width = grad_out.shape
    grad_x = _like(grad_out, (n, channels, 2 * height, 2 * width), grad_out.dtype)
    if grad_out.numel():
        with on_device_of(grad_out):
            kernels.pool_backward[_grid(grad_out)](
                as_rows(grad_out), as_rows(chosen), as_rows(grad_x), *_sizes(grad_out), **_constants(grad_out)
            )
    return grad_x


def _like(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=x.device, memory_format=torch.channels_last)


def _blocks(out: Tensor) -> tuple[int, int]:
    """Rows and channels of a tile."""
    channels = min(ROW_BYTES // out.element_size(), max(4, triton.next_power_of_2(out.shape[1])))
    return TILE_BYTES // out.element_size() // channels, channels


def _grid(out: Tensor) -> tuple[int, int]:
    rows, channels = _blocks(out)
    return triton.cdiv(out.numel() // out.shape[1], rows), triton.cdiv(out.shape[1], channels)


def _sizes(out: Tensor) -> tuple[int, int]:
    """Rows of the result and its width."""
    return out.numel() // out.shape[1], out.shape[3]


def _constants(out: Tensor) -> dict[str, int]:
    rows, channels = _blocks(out)
    return {"C": out.shape[1], "BLOCK_P": rows, "BLOCK_C": channels, "num_warps": WARPS}
