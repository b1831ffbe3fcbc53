"""Max pooling: one signature, several backends."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attunet.errors import InputError
from attunet.ops.backends import DTYPES, are_transformed, choose, custom_operator_obstacle, triton_obstacle
from attunet.ops.pool.registration import max_pool_with_index


def max_pool(x: Tensor, *, backend: str = "auto") -> Tensor:
    """The largest value of each 2x2 window, as `torch.nn.functional.max_pool2d(x, 2)`:
    NaN stays NaN, the first of equal values counts.

    Args:
        x: (N, C, H, W) in float16, bfloat16, float32 or float64.
        backend: `torch` is torch's own; `triton` has CUDA kernels for channels-last tensors of even height and width in
            float32, bfloat16 and float16 that keep one byte per result for the backward pass, where torch keeps eight.
            `auto` takes `triton` where it applies; inside torch.compile it takes `torch`, which the compiler joins with
            what surrounds it.

    Returns:
        (N, C, H // 2, W // 2) in the dtype and memory format of x.

    Raises:
        InputError: for a wrong shape or dtype, or a named backend that cannot compute this call.

    Example:
        >>> max_pool(torch.arange(16.0).view(1, 1, 4, 4))
        tensor([[[[ 5.,  7.],
                  [13., 15.]]]])
    """
    if x.dim() != 4 or x.dtype not in DTYPES or min(x.shape[2:]) < 2:
        names = ", ".join(map(str, DTYPES))
        raise InputError(
            f"max_pool: x must be (N, C, H, W) in {names}, H and W at least 2, got {tuple(x.shape)} in {x.dtype}"
        )
    if choose_backend(x, backend, transformed=are_transformed(x)) == "torch":
        return F.max_pool2d(x, 2)
    if torch.is_grad_enabled() and x.requires_grad:
        pooled: Tensor = max_pool_with_index(x)[0]
        return pooled
    from attunet.ops.pool import triton_pool  # Triton exists on Linux alone

    return triton_pool.forward(x, with_index=False)[0]


def choose_backend(x: Tensor, backend: str = "auto", *, transformed: bool = False) -> str:
    """The backend that pools x, by its dtype, device, shape and memory format; otherwise as for `batch_norm_relu`."""
    obstacle = custom_operator_obstacle(transformed) or triton_obstacle(x)
    if not obstacle and not x.is_contiguous(memory_format=torch.channels_last):
        obstacle = "takes channels-last tensors: use auto or torch"
    if not obstacle and (x.shape[2] % 2 or x.shape[3] % 2):
        obstacle = f"takes even heights and widths, got {x.shape[2]} x {x.shape[3]}: use auto or torch"
    if not obstacle and torch.compiler.is_compiling():
        obstacle = "is not for torch.compile, which joins torch's own pooling with what surrounds it: use auto or torch"
    return choose("max_pool", backend, {"triton": obstacle, "torch": ""})
