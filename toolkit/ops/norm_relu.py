"""Batch norm with ReLU as one operation: one signature, several backends."""

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.nn import functional as F

from attunet.errors import InputError
from attunet.ops.backends import (
    DTYPES,
    are_transformed,
    check_parameter,
    choose,
    custom_operator_obstacle,
    triton_obstacle,
)
from attunet.ops.norm.registration import norm_relu, norm_statistics


def batch_norm_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    synchronized: bool = False,
    backend: str = "auto",
) -> Tensor:
    """relu((x - mean) / sqrt(var + eps) * weight + bias), with mean and variance of every channel.

    Batch normalisation of Ioffe and Szegedy 2015 (https://arxiv.org/abs/1502.03167), as
    `torch.nn.functional.batch_norm` computes it.

    Args:
        x: (N, C, H, W) in float16, bfloat16, float32 or float64.
        weight, bias: (C,), in the dtype of x or float32, like all vectors.
        running_mean, running_var: (C,); in training updated in place, the second with the unbiased variance.
        training: whether mean and variance are the batch's; otherwise they are the running ones.
        momentum: weight of the batch in the running statistics.
        eps: added to the variance.
        synchronized: whether a batch is the slices of all processes (of the default process group) together; in
            training only.
        backend: `reference` is the formula in plain torch; `torch` is torch's own batch norm and ReLU; `triton` has
            fused CUDA kernels for channels-last tensors in float32, bfloat16 and float16. `auto` takes `triton`,
            `torch` or `reference`, the first that applies.

    Returns:
        (N, C, H, W) in the dtype and memory format of x.

    Raises:
        InputError: for a wrong shape, dtype or device, for one value per channel in training, or for a named backend
            that cannot compute this call.

    Example:
        >>> x, one, zero = torch.rand(2, 8, 16, 16), torch.ones(8), torch.zeros(8)
        >>> batch_norm_relu(x, one, zero, zero.clone(), one.clone(), training=True).shape
        torch.Size([2, 8, 16, 16])
    """
    synchronized = synchronized and training and distributed.is_available() and distributed.is_initialized()
    vectors = (weight, bias, running_mean, running_var)
    _check(x, vectors, needs_two=training and not synchronized)
    transformed = are_transformed(x, weight, bias)
    chosen = choose_backend(x, backend, synchronized=synchronized, transformed=transformed)
    if chosen == "torch":
        return F.relu(F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps), inplace=True)
    if chosen == "reference":
        return _reference(x, vectors, training, momentum, eps, synchronized)
    mean, var, count = running_mean, running_var, None
    if training:
        mean, var, count = norm_statistics(x.detach(), running_mean, running_var, momentum, synchronized)
    result: Tensor = norm_relu(x, weight, bias, mean, var, count, eps, synchronized)
    return result


def choose_backend(x: Tensor, backend: str = "auto", *, synchronized: bool = False, transformed: bool = False) -> str:
    """The backend that computes batch norm with ReLU on x, by its dtype, device and memory format.

    Args:
        backend: `auto` or a backend's name.
        synchronized: whether the statistics are those of several processes.
        transformed: whether the call is inside a transform of torch.func.

    Raises InputError for an unknown name, or a named backend that cannot compute this call.
    """
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    not_channels_last = "" if channels_last else "takes channels-last tensors: use auto, torch or reference"
    obstacles = {
        "triton": custom_operator_obstacle(transformed) or triton_obstacle(x) or not_channels_last,
        "torch": "computes the statistics of one process: use triton or reference" if synchronized else "",
        "reference": "",
    }
    return choose("batch_norm_relu", backend, obstacles)


def _reference(
    x: Tensor, vectors: tuple[Tensor, ...], training: bool, momentum: float, eps: float, synchronized: bool
) -> Tensor:
    """The specification of every backend, in float32 or better."""
    weight, bias, running_mean, running_var = vectors
    dtype = torch.promote_types(x.dtype, torch.float32)
    values, mean, var = x.to(dtype), running_mean.to(dtype), running_var.to(dtype)
    if training:
        count = _sum(values.new_full((1,), x.numel() / x.shape[1]), synchronized)
        mean = _sum(values.sum((0, 2, 3)), synchronized) / count
        var = _sum((values - _of_channels(mean)).square().sum((0, 2, 3)), synchronized) / count
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * count / (count - 1)).to(running_var.dtype), momentum)
    normalised = (values - _of_channels(mean)) * _of_channels(torch.rsqrt(var + eps))
    return torch.relu(normalised * _of_channels(weight.to(dtype)) + _of_channels(bias.to(dtype))).to(x.dtype)


def _of_channels(vector: Tensor) -> Tensor:
    return vector[:, None, None]


def _sum(value: Tensor, over_processes: bool) -> Tensor:
    """The value, or its sum over all processes, whose gradient is the sum of their gradients."""
    if not over_processes:
        return value
    from torch.distributed.nn.functional import all_reduce

    total: Tensor = all_reduce(value)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return total


def _check(x: Tensor, vectors: tuple[Tensor, ...], *, needs_two: bool) -> None:
    if x.dim() != 4 or x.dtype not in DTYPES:
        names = ", ".join(map(str, DTYPES))
        raise InputError(f"batch_norm_relu: x must be (N, C, H, W) in {names}, got {tuple(x.shape)} in {x.dtype}")
    for name, vector in zip(("weight", "bias", "running_mean", "running_var"), vectors, strict=True):
        check_parameter("batch_norm_relu", name, vector, (x.shape[1],), x)
    if needs_two and x.shape[0] * x.shape[2] * x.shape[3] < 2:
        raise InputError(f"batch_norm_relu: training needs more than one value per channel, got x {tuple(x.shape)}")
