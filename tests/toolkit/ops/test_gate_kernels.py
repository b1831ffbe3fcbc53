"""Kernels of the gate with several tiles for a program, and broken ones, which the comparison of values catches."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from gate_cases import SHAPES, Gate, Shape, assert_agrees

from attunet.ops.gate import cpu_gate
from attunet.ops.gate.reference import GateParameters

Break = Callable[[ModuleType, str, str], None]
CHANNELS_LAST = torch.channels_last
BACKENDS = ("triton",)


@pytest.fixture
def several_tiles(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So few programs and parts that each program takes several tiles, as it does in networks of usual size."""
    from attunet.ops.gate import streamed_gate, triton_gate

    for module in (triton_gate, streamed_gate):
        monkeypatch.setattr(module, "num_multiprocessors", lambda x: 1)
    monkeypatch.setattr(streamed_gate, "FINISH_TILE", (1, 32))


STREAMED = Shape(2, 160, 160, 70, 9, 11)


@pytest.mark.usefixtures("several_tiles")
def test_several_tiles_for_a_program(gate: Gate, device: str, dtype: torch.dtype) -> None:
    assert_agrees(gate, Shape(3, 64, 48, 32, 11, 13), dtype, device, CHANNELS_LAST)


@pytest.mark.usefixtures("several_tiles")
def test_a_streamed_gate_of_several_tiles(gate: Gate, device: str) -> None:
    for layout in (CHANNELS_LAST, torch.contiguous_format):
        assert_agrees(gate, STREAMED, torch.float16, device, layout)


BREAKAGES = {
    "no kink": ("hidden <= 0.0, 0.0, grad_logit", "hidden <= -1.0, 0.0, grad_logit"),
    "half a sigmoid": ("* a * (1.0 - a)", "* a"),
    "ones outside the image": ("other=0.0)\n\n\n@triton.jit\ndef _store", "other=1.0)\n\n\n@triton.jit\ndef _store"),
    "ungated gradient": ("grad_tiles[i].to(tl.float32) * a[:, None]", "grad_tiles[i].to(tl.float32)"),
    "last tile only": ("tl.dot(tl.trans(row), grad_h, total,", "tl.dot(tl.trans(row), grad_h, 0.0 * total,"),
    "psi without hidden": (
        "tl.store(partial + F + f, tl.sum(hidden * grad_logit",
        "tl.store(partial + F + f, tl.sum(grad_logit",
    ),
    "no sigmoid": ("_sigmoid(tl.sum(hidden_tile", "(tl.sum(hidden_tile"),
}


@pytest.mark.usefixtures("several_tiles")
@pytest.mark.parametrize(("old", "new"), BREAKAGES.values(), ids=BREAKAGES.keys())
def test_a_broken_kernel_is_caught(gate: Gate, device: str, old: str, new: str, break_kernels: Break) -> None:
    from attunet.ops.gate import triton_gate

    break_kernels(triton_gate, old, new)
    with pytest.raises(AssertionError):
        assert_agrees(gate, SHAPES["more tiles than one"], torch.float32, device)


STREAMED_BREAKAGES = {
    "no kink": ("hidden <= 0.0, 0.0, grad_logit", "hidden <= -1.0, 0.0, grad_logit"),
    "half a sigmoid": ("* a * (1.0 - a)", "* a"),
    "ungated gradient": (
        ".to(tl.float32) * a[:, None]\n        _store(grad_x",
        ".to(tl.float32)\n        _store(grad_x",
    ),
    "last tile only": ("tl.dot(tl.trans(left), right, total)", "tl.dot(tl.trans(left), right)"),
    "first channels only": (
        "hidden = tl.dot(tile, tl.trans(w), hidden)",
        "hidden = tl.where(start == 0, tl.dot(tile, tl.trans(w), hidden), hidden)",
    ),
    "g where x belongs": ("            g, grad_hidden, partial_g", "            x, grad_hidden, partial_g"),
    "vectors of the first tiles": ("range(0, parts, BLOCK_R)", "range(0, 1, BLOCK_R)"),
}


@pytest.mark.usefixtures("several_tiles")
@pytest.mark.parametrize(("old", "new"), STREAMED_BREAKAGES.values(), ids=STREAMED_BREAKAGES.keys())
def test_a_broken_streamed_kernel_is_caught(gate: Gate, device: str, old: str, new: str, break_kernels: Break) -> None:
    from attunet.ops.gate import streamed_gate

    break_kernels(streamed_gate, old, new)
    with pytest.raises(AssertionError):
        assert_agrees(gate, STREAMED, torch.float16, device, CHANNELS_LAST)


def test_a_broken_cpu_gate_is_caught(broken: Callable[[ModuleType, str, str], ModuleType]) -> None:
    module = broken(cpu_gate, "= sigmoid_backward(", "= torch.mul(")

    class BrokenGate(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):  # type: ignore[no-untyped-def]
            ctx.save_for_backward(*inputs)
            return module.forward(*inputs[:2], GateParameters(*inputs[2:]))

        @staticmethod
        def backward(ctx, *grads):  # type: ignore[no-untyped-def]
            x, g, *parameters = ctx.saved_tensors
            grad_x, grad_g, gradients = module.backward(*grads, x, g, GateParameters(*parameters))
            return grad_x, grad_g, *gradients

    with pytest.raises(AssertionError, match="relative error"):
        assert_agrees(BrokenGate.apply, SHAPES["square"], torch.float32, "cpu")
