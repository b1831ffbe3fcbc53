"""The attention gate: one signature, several backends."""

from typing import Literal, overload

import torch
from torch import Tensor

from attunet.errors import InputError
from attunet.ops.backends import (
    DTYPES,
    are_transformed,
    check_parameter,
    choose,
    custom_operator_obstacle,
    triton_obstacle,
)
from attunet.ops.gate.reference import GateParameters, attention_gate_reference
from attunet.ops.gate.registration import gate_cpu, gate_triton


@overload
def attention_gate(
    x: Tensor, g: Tensor, weight_x: Tensor, weight_g: Tensor, bias: Tensor, psi_weight: Tensor, psi_bias: Tensor,
    *, backend: str = ..., return_alpha: Literal[False] = ...,
) -> Tensor: ...  # fmt: skip


@overload
def attention_gate(
    x: Tensor, g: Tensor, weight_x: Tensor, weight_g: Tensor, bias: Tensor, psi_weight: Tensor, psi_bias: Tensor,
    *, backend: str = ..., return_alpha: Literal[True],
) -> tuple[Tensor, Tensor]: ...  # fmt: skip


def attention_gate(
    x: Tensor,
    g: Tensor,
    weight_x: Tensor,
    weight_g: Tensor,
    bias: Tensor,
    psi_weight: Tensor,
    psi_bias: Tensor,
    *,
    backend: str = "auto",
    return_alpha: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """alpha = sigmoid(psi . relu(W_x x + W_g g + b) + b_psi); out = concat(alpha * x, g).

    The additive attention gate of Oktay et al. 2018 (https://arxiv.org/abs/1804.03999), section 2.2, at full resolution
    and without batch norm. Under autocast x and g are cast as the inputs of a convolution are.

    Args:
        x: skip (N, C, H, W) in float16, bfloat16, float32 or float64. N may be 0, no other size may.
        g: gating signal (N, G, H, W), with the dtype and device of x.
        weight_x: (F, C), in the dtype of x or float32, like all parameters.
        weight_g: (F, G).
        bias: (F,).
        psi_weight: (F,).
        psi_bias: (1,).
        backend: `reference` is plain torch on any device, also under torch.func and forward-mode derivatives; `cpu`
            computes blocks of pixels; `triton` has fused CUDA kernels for float32, bfloat16 and float16. `cpu` and
            `triton` save only the inputs for the backward pass. `auto` takes `triton` or `cpu` if they apply, else
            `reference`.
        return_alpha: whether alpha is returned too.

    Returns:
        out (N, C + G, H, W), with `return_alpha` also alpha (N, 1, H, W); channels-last if x and g are.

    Raises:
        InputError: for a wrong shape, dtype or device, or a named backend that cannot compute this call.

    Example:
        >>> x, g = torch.rand(2, 1, 8, 16, 16)
        >>> parameters = torch.rand(4, 8), torch.rand(4, 8), torch.zeros(4), torch.rand(4), torch.zeros(1)
        >>> attention_gate(x, g, *parameters).shape
        torch.Size([1, 16, 16, 16])
    """
    _check_dtypes(x, g)
    if x.device.type != "meta" and torch.is_autocast_enabled(x.device.type):
        x, g = (t if t.dtype == torch.float64 else t.to(torch.get_autocast_dtype(x.device.type)) for t in (x, g))
    parameters = GateParameters(weight_x, weight_g, bias, psi_weight, psi_bias)
    _check(x, g, parameters)
    chosen = choose_backend(x, backend, transformed=are_transformed(x, g, *parameters))
    gate = {"reference": attention_gate_reference, "cpu": gate_cpu, "triton": gate_triton}[chosen]
    out, alpha = gate(x, g, *parameters)
    return (out, alpha) if return_alpha else out


def choose_backend(x: Tensor, backend: str = "auto", *, transformed: bool = False) -> str:
    """The backend that computes a gate on the skip x, by its dtype and device; otherwise as for `batch_norm_relu`."""
    custom = custom_operator_obstacle(transformed)
    not_on_cpu = "" if x.device.type == "cpu" else f"takes tensors on the CPU, got {x.device.type}"
    obstacles = {"triton": custom or triton_obstacle(x), "cpu": custom or not_on_cpu, "reference": ""}
    return choose("attention_gate", backend, obstacles)


def _check_dtypes(x: Tensor, g: Tensor) -> None:
    """Checks before autocast, which would convert integers to floating point."""
    for name, tensor in {"x": x, "g": g}.items():
        if tensor.dtype not in DTYPES:
            raise InputError(f"attention_gate: {name} must be {', '.join(map(str, DTYPES))}, got {tensor.dtype}")


def _check(x: Tensor, g: Tensor, parameters: GateParameters) -> None:
    if x.dim() != 4 or g.dim() != 4 or x.shape[0] != g.shape[0] or x.shape[2:] != g.shape[2:]:
        got = f"{tuple(x.shape)} and {tuple(g.shape)}"
        raise InputError(f"attention_gate: x and g must be (N, C, H, W) and (N, G, H, W), got {got}")
    bias = parameters.bias
    if 0 in (*x.shape[1:], *g.shape[1:], *bias.shape):
        got = f"x {tuple(x.shape)}, g {tuple(g.shape)} and bias {tuple(bias.shape)}"
        raise InputError(f"attention_gate: only N may be 0, got {got}")
    hidden = bias.shape[0] if bias.dim() else 0
    shapes: tuple[tuple[int, ...], ...] = ((hidden, x.shape[1]), (hidden, g.shape[1]), (hidden,), (hidden,), (1,))
    for name, parameter, shape in zip(GateParameters._fields, parameters, shapes, strict=True):
        check_parameter("attention_gate", name, parameter, shape, x)
    if g.dtype != x.dtype or g.device != x.device:
        got = f"{x.dtype} on {x.device} and {g.dtype} on {g.device}"
        raise InputError(f"attention_gate: x and g must be of one dtype on one device, got {got}")
