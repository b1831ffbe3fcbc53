"""Batch norm with ReLU as operators of torch.library, so that torch.compile keeps them whole.

`norm_statistics` computes a batch's statistics and moves the running ones; `norm_relu` normalises. The gradient of
`norm_relu` includes the path through the batch's statistics, so mean, variance and count are no differentiable inputs.
Only x and vectors are saved.
"""

from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor

from attunet.ops.library import define


def _statistics(
    x: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float, synchronized: bool
) -> tuple[Tensor, Tensor, Tensor]:
    from attunet.ops.norm import triton_norm  # Triton exists on Linux alone, and is imported when it is used

    partial = triton_norm.statistics(x)
    if synchronized:
        mean, var, count = triton_norm.combine(partial)
        local = torch.stack((count.expand_as(mean), mean, var * count))
        partial = local.new_empty((distributed.get_world_size(), *local.shape))
        distributed.all_gather(list(partial.unbind(0)), local)
    return triton_norm.combine(partial, running_mean, running_var, momentum)


def _fake_statistics(x: Tensor, *_: object) -> tuple[Tensor, ...]:
    """Mean, variance and count."""
    return tuple(x.new_empty(size, dtype=torch.float32) for size in (x.shape[1], x.shape[1], 1))


def _normalise(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor,
    count: Tensor | None, eps: float, synchronized: bool,
) -> Tensor:  # fmt: skip
    from attunet.ops.norm import triton_norm

    return triton_norm.normalise(x, (weight, bias, mean, var), eps)


def _gradients(
    grad_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor,
    count: Tensor | None, eps: float, synchronized: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of x, weight and bias; those of weight and bias are of this process's slices."""
    from attunet.ops.norm import triton_norm

    grad_out = grad_out.contiguous(memory_format=torch.channels_last)
    vectors = (weight, bias, mean, var)
    grad_weight, grad_bias = triton_norm.gradient_sums(grad_out, x, vectors, eps)
    sums = None
    if count is not None:
        sum_dy, sum_dy_x = grad_bias, grad_weight
        if synchronized:
            both = torch.stack((grad_bias, grad_weight))
            distributed.all_reduce(both)
            sum_dy, sum_dy_x = both.unbind(0)
        sums = (count, sum_dy, sum_dy_x)
    grad_x = triton_norm.gradient(grad_out, x, vectors, eps, sums)
    return grad_x, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype)


def _fake_gradients(grad_out: Tensor, *x_weight_bias: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(t) for t in x_weight_bias[:3])


norm_statistics = define("norm_statistics", _statistics, _fake_statistics, ("running_mean", "running_var"))
norm_relu = define("norm_relu", _normalise, lambda x, *_: torch.empty_like(x))
norm_relu_backward = define("norm_relu_backward", _gradients, _fake_gradients)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.eps, ctx.synchronized = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    gradients = norm_relu_backward(grad_out, *ctx.saved_tensors, ctx.eps, ctx.synchronized)
    return *gradients, None, None, None, None, None


def _refuse_second_derivative(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    raise RuntimeError("batch_norm_relu: backend triton has no second derivative; use backend torch or reference")


torch.library.register_autograd("attunet::norm_relu", _differentiate, setup_context=_save)
torch.library.register_autograd("attunet::norm_relu_backward", _refuse_second_derivative)
