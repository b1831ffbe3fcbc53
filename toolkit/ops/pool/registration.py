"""2x2 max pooling as operators of torch.library, with the place of each value as one byte."""

from typing import Any

import torch
from torch import Tensor

from attunet.ops.library import define


def _pool(x: Tensor) -> tuple[Tensor, Tensor]:
    from attunet.ops.pool import triton_pool  # Triton exists on Linux alone, and is imported when it is used

    out, chosen = triton_pool.forward(x, with_index=True)
    assert chosen is not None
    return out, chosen


def _fake_pool(x: Tensor) -> tuple[Tensor, Tensor]:
    shape = (x.shape[0], x.shape[1], x.shape[2] // 2, x.shape[3] // 2)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    return out, torch.empty_like(out, dtype=torch.uint8)


def _pool_backward(grad_out: Tensor, chosen: Tensor) -> Tensor:
    from attunet.ops.pool import triton_pool

    return triton_pool.backward(grad_out.contiguous(memory_format=torch.channels_last), chosen)


def _fake_pool_backward(grad_out: Tensor, chosen: Tensor) -> Tensor:
    shape = (*grad_out.shape[:2], 2 * grad_out.shape[2], 2 * grad_out.shape[3])
    return torch.empty(shape, dtype=grad_out.dtype, device=grad_out.device, memory_format=torch.channels_last)


max_pool_with_index = define("max_pool", _pool, _fake_pool)
max_pool_backward = define("max_pool_backward", _pool_backward, _fake_pool_backward)


def _save(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _differentiate(ctx: Any, grad_out: Tensor, _: Tensor | None) -> Tensor:
    grad_x: Tensor = max_pool_backward(grad_out, *ctx.saved_tensors)
    return grad_x


def _refuse_second_derivative(ctx: Any, grad_x: Tensor) -> tuple[Tensor | None, None]:
    raise RuntimeError("max_pool: backend triton has no second derivative; use backend torch")


torch.library.register_autograd("attunet::max_pool", _differentiate, setup_context=_save)
torch.library.register_autograd("attunet::max_pool_backward", _refuse_second_derivative)
