"""Launches of the Triton kernels of 2x2 max pooling. Imported on first use, since it imports Triton.

Every tensor is channels-last, so that it is a view of rows (N * H * W, C).
"""

from typing import Any

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
    """The largest value of each 2x2 window of x (N, C, H, W), and its place in the window (uint8) or None."""
    n, channels, height, width = x.shape
    out = _like(x, (n, channels, height // 2, width // 2), x.dtype)
    chosen = _like(x, tuple(out.shape), torch.uint8) if with_index else None
    if out.numel():
        with on_device_of(x):
            places = None if chosen is None else as_rows(chosen)
            _launch(kernels.pool_forward, out, as_rows(x), as_rows(out), places)
    return out, chosen


def backward(grad_out: Tensor, chosen: Tensor) -> Tensor:
    """The gradient of x (N, C, H, W) from that of the result and the places of its values."""
    n, channels, height, width = grad_out.shape
    grad_x = _like(grad_out, (n, channels, 2 * height, 2 * width), grad_out.dtype)
    if grad_out.numel():
        with on_device_of(grad_out):
            _launch(kernels.pool_backward, grad_out, as_rows(grad_out), as_rows(chosen), as_rows(grad_x))
    return grad_x


def _like(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=x.device, memory_format=torch.channels_last)


def _launch(kernel: Any, result: Tensor, *tensors: Tensor | None) -> None:
    """Launches a kernel whose tiles are of `result`."""
    count, channels, width = result.numel() // result.shape[1], result.shape[1], result.shape[3]
    block_channels = min(ROW_BYTES // result.element_size(), max(4, triton.next_power_of_2(channels)))
    block_rows = TILE_BYTES // result.element_size() // block_channels
    kernel[(triton.cdiv(count, block_rows), triton.cdiv(channels, block_channels))](
        *tensors, count, width, C=channels, BLOCK_P=block_rows, BLOCK_C=block_channels, num_warps=WARPS
    )
