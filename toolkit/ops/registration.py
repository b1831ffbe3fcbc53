"""The backends that compute a gate as one operation, known to torch.library: so torch.compile does not break at them, and they save
nothing for the backward pass but the inputs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attunet.ops import cpu_gate
from attunet.ops.layout import empty_alpha, empty_result

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _triton_forward(
    x: Tensor, g: Tensor, weight_x: Tensor, weight_g: Tensor, bias: Tensor, psi_weight: Tensor, psi_bias: Tensor
) -> tuple[Tensor, Tensor]:
    from attunet.ops import triton_gate  # Triton is imported when it is used, for it exists on Linux alone

    return triton_gate.forward(x, g, weight_x, weight_g, bias, psi_weight, psi_bias)


def _triton_backward(
    grad_out: Tensor, grad_alpha: Tensor | None, x: Tensor, g: Tensor,
    weight_x: Tensor, weight_g: Tensor, bias: Tensor, psi_weight: Tensor, psi_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    from attunet.ops import triton_gate

    return triton_gate.backward(grad_out, grad_alpha, x, g, weight_x, weight_g, bias, psi_weight, psi_bias)


def _fake_forward(x: Tensor, g: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
    return empty_result(x, g, x.shape[1] + g.shape[1]), empty_alpha(x)


def _fake_backward(grad_out: Tensor, grad_alpha: Tensor | None, x: Tensor, g: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
    return empty_result(x, g, x.shape[1]), empty_result(x, g, g.shape[1]), *(p.new_empty(p.shape) for p in parameters)


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)
    ctx.set_materialize_grads(False)  # alpha is seldom part of a loss


def _register(name: str, forward: Callable[..., tuple[Tensor, Tensor]], backward: Callable[..., Gradients]) -> Callable[..., Any]:
    """Registers `attunet::name` and `attunet::name_backward`; returns the first."""
    operation, gradient = _define(name, forward, _fake_forward), _define(f"{name}_backward", backward, _fake_backward)

    def differentiate(ctx: Any, grad_out: Tensor | None, grad_alpha: Tensor | None) -> Gradients:
        inputs = ctx.saved_tensors  # read once: activation checkpointing computes them at that moment
        if grad_out is None:
            grad_out = torch.zeros_like(_fake_forward(*inputs)[0])
        return gradient(grad_out, grad_alpha, *inputs)

    torch.library.register_autograd(f"attunet::{name}", differentiate, setup_context=_keep_inputs)
    return operation


def _define(name: str, function: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """One operation. `torch.library.custom_op` would check at every call that no result is an input: a tenth of a small gate's time."""
    torch.library.define(f"attunet::{name}", torch.library.infer_schema(function, mutates_args=()))
    torch.library.impl(f"attunet::{name}", "default", function)
    torch.library.register_fake(f"attunet::{name}", fake)
    return getattr(torch.ops.attunet, name).default


gate_cpu = _register("attention_gate_cpu", cpu_gate.forward, cpu_gate.backward)
gate_triton = _register("attention_gate_triton", _triton_forward, _triton_backward)
