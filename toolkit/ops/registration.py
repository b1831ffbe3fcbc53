"""The backends that compute a gate as one operation, known to torch.library: so torch.compile does not break at them, and they save
nothing for the backward pass but the inputs. Derivatives of the second order come from the reference, computed again."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attunet.ops import cpu_gate
from attunet.ops.layout import empty_alpha, empty_result
from attunet.ops.reference import attention_gate_reference

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


def _keep_all(ctx: Any, inputs: tuple[Tensor | None, ...], output: Gradients) -> None:
    ctx.save_for_backward(*inputs)
    ctx.set_materialize_grads(False)


def _differentiate_twice(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    """The gradients of a backward pass's inputs (grad_out, grad_alpha or None, and the gate's seven), through the reference."""
    with torch.enable_grad(), torch.autocast(ctx.saved_tensors[0].device.type, enabled=False):
        given = [None if t is None else t.detach().requires_grad_() for t in ctx.saved_tensors]
        leaves = [t for t in given if t is not None]
        inputs = leaves[-7:]
        used = [(result, grad) for result, grad in zip(attention_gate_reference(*inputs), given[:2], strict=True) if grad is not None]
        first = torch.autograd.grad([r for r, _ in used], inputs, [g for _, g in used], create_graph=True, materialize_grads=True)
        asked = [(gradient, grad) for gradient, grad in zip(first, grads, strict=True) if grad is not None and gradient.requires_grad]
        second = iter(torch.autograd.grad([v for v, _ in asked], leaves, [g for _, g in asked], materialize_grads=True))
    return tuple(None if t is None else next(second) for t in given)


def _register(name: str, forward: Callable[..., tuple[Tensor, Tensor]], backward: Callable[..., Gradients]) -> Callable[..., Any]:
    """Registers `attunet::name` and `attunet::name_backward`; returns the first."""
    operation, gradient = _define(name, forward, _fake_forward), _define(f"{name}_backward", backward, _fake_backward)

    def differentiate(ctx: Any, grad_out: Tensor | None, grad_alpha: Tensor | None) -> Gradients:
        inputs = ctx.saved_tensors  # read once: activation checkpointing computes them at that moment
        if grad_out is None:
            grad_out = torch.zeros_like(_fake_forward(*inputs)[0])
        return gradient(grad_out, grad_alpha, *inputs)

    torch.library.register_autograd(f"attunet::{name}", differentiate, setup_context=_keep_inputs)
    torch.library.register_autograd(f"attunet::{name}_backward", _differentiate_twice, setup_context=_keep_all)
    return operation


def _define(name: str, function: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """One operation. `torch.library.custom_op` would check at every call that no result is an input: a tenth of a small gate's time."""
    torch.library.define(f"attunet::{name}", torch.library.infer_schema(function, mutates_args=()))
    torch.library.impl(f"attunet::{name}", "default", function)
    torch.library.register_fake(f"attunet::{name}", fake)
    return getattr(torch.ops.attunet, name).default


gate_cpu = _register("attention_gate_cpu", cpu_gate.forward, cpu_gate.backward)
gate_triton = _register("attention_gate_triton", _triton_forward, _triton_backward)
