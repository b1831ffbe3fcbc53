"""The fused backends of the gate as operators of torch.library, so that torch.compile keeps them whole.

Only the inputs are saved for the backward pass. Second derivatives are computed through the reference.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from attunet.ops.gate.reference import GateParameters, attention_gate_reference
from attunet.ops.library import define
from attunet.ops.memory_format import empty_alpha, empty_result

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _fake_forward(x: Tensor, g: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
    return empty_result(x, g, x.shape[1] + g.shape[1]), empty_alpha(x)


def _fake_backward(
    grad_out: Tensor, grad_alpha: Tensor | None, x: Tensor, g: Tensor, *parameters: Tensor
) -> tuple[Tensor, ...]:
    return empty_result(x, g, x.shape[1]), empty_result(x, g, g.shape[1]), *(p.new_empty(p.shape) for p in parameters)


def _save_inputs(ctx: Any, inputs: tuple[Tensor | None, ...], output: object) -> None:
    ctx.save_for_backward(*inputs)
    ctx.set_materialize_grads(False)  # a loss seldom uses alpha


def _second_derivative(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    """Gradients of a backward pass's inputs (grad_out, grad_alpha or None, the gate's seven), by the reference."""
    with torch.enable_grad(), torch.autocast(ctx.saved_tensors[0].device.type, enabled=False):
        given = [None if t is None else t.detach().requires_grad_() for t in ctx.saved_tensors]
        leaves = [t for t in given if t is not None]
        inputs = leaves[-7:]
        results = zip(attention_gate_reference(*inputs), given[:2], strict=True)
        used, grads_used = zip(*((r, grad) for r, grad in results if grad is not None), strict=True)
        first = torch.autograd.grad(used, inputs, grads_used, create_graph=True, materialize_grads=True)
        pairs = zip(first, grads, strict=True)
        needed = [(v, grad) for v, grad in pairs if grad is not None and v.requires_grad]
        second = iter(
            torch.autograd.grad([v for v, _ in needed], leaves, [g for _, g in needed], materialize_grads=True)
        )
    return tuple(None if t is None else next(second) for t in given)


def _register(name: str, module: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """Registers `attunet::name` and `attunet::name_backward`, computed by a module that is imported when they are used,
    since Triton exists on Linux alone; returns the first.
    """

    def forward(
        x: Tensor, g: Tensor, weight_x: Tensor, weight_g: Tensor, bias: Tensor, psi_weight: Tensor, psi_bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        parameters = GateParameters(weight_x, weight_g, bias, psi_weight, psi_bias)
        results: tuple[Tensor, Tensor] = import_module(module).forward(x, g, parameters)
        return results

    def backward(
        grad_out: Tensor, grad_alpha: Tensor | None, x: Tensor, g: Tensor,
        weight_x: Tensor, weight_g: Tensor, bias: Tensor, psi_weight: Tensor, psi_bias: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        parameters = GateParameters(weight_x, weight_g, bias, psi_weight, psi_bias)
        grad_x, grad_g, gradients = import_module(module).backward(grad_out, grad_alpha, x, g, parameters)
        return grad_x, grad_g, *gradients

    operation = define(name, forward, _fake_forward)
    gradient = define(f"{name}_backward", backward, _fake_backward)

    def differentiate(ctx: Any, grad_out: Tensor | None, grad_alpha: Tensor | None) -> Gradients:
        inputs = ctx.saved_tensors  # read once: activation checkpointing computes them at that moment
        if grad_out is None:
            grad_out = torch.zeros_like(_fake_forward(*inputs)[0])
        gradients: Gradients = gradient(grad_out, grad_alpha, *inputs)
        return gradients

    torch.library.register_autograd(f"attunet::{name}", differentiate, setup_context=_save_inputs)
    torch.library.register_autograd(f"attunet::{name}_backward", _second_derivative, setup_context=_save_inputs)
    return operation


gate_cpu = _register("attention_gate_cpu", "attunet.ops.gate.cpu_gate")
gate_triton = _register("attention_gate_triton", "attunet.ops.gate.triton_gate")
