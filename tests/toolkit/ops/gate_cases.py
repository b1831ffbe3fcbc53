"""Inputs of the gate for the tests of its values and of its kernels, and the comparison with the reference."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from comparison import assert_near
from torch import Tensor

from attunet.ops.gate.reference import attention_gate_reference

Gate = Callable[..., tuple[Tensor, Tensor]]
NAMES = ("out", "alpha", "x", "g", "weight_x", "weight_g", "bias", "psi_weight", "psi_bias")


@dataclass(frozen=True)
class Shape:
    images: int
    channels: int
    gating_channels: int
    hidden: int
    height: int
    width: int


SHAPES = {
    "square": Shape(2, 16, 16, 8, 8, 8),
    "odd, and differing channels": Shape(2, 5, 19, 3, 5, 7),
    "one pixel": Shape(3, 4, 4, 2, 1, 1),
    "one channel": Shape(2, 1, 1, 1, 3, 6),
    "more tiles than one": Shape(1, 64, 64, 32, 11, 13),
    "hidden wider than half": Shape(1, 24, 40, 48, 6, 6),
    "beyond 64": Shape(1, 128, 96, 64, 5, 6),
    "beyond the fused kernels": Shape(1, 300, 272, 150, 4, 5),
}


def gate_inputs(shape: Shape, seed: int = 0) -> list[Tensor]:
    """The seven float64 inputs, such that rounding is all that can differ.

    x and g are not negative, as after a ReLU, so that sums over pixels hardly cancel; and of many random pixels those
    are taken whose hidden features stay clear of the ReLU's kink, where another rounding would rightly give another
    gradient.
    """
    random = torch.Generator().manual_seed(seed)
    c, k, f = shape.channels, shape.gating_channels, shape.hidden

    def uniform(*size: int, low: float = -1.0) -> Tensor:
        return torch.empty(size, dtype=torch.float64).uniform_(low, 1.0, generator=random)

    weight_x, weight_g, bias = uniform(f, c) / c**0.5, uniform(f, k) / k**0.5, uniform(f) / 2
    psi_weight, psi_bias = uniform(f) / f**0.5, uniform(1)
    pixels = shape.images * shape.height * shape.width
    x, g = uniform(64 * pixels, c, low=0), uniform(64 * pixels, k, low=0)
    clear = (x @ weight_x.T + g @ weight_g.T + bias).abs().amin(dim=1).topk(pixels).indices

    def image(rows: Tensor) -> Tensor:
        return rows[clear].view(shape.images, shape.height, shape.width, rows.shape[1]).permute(0, 3, 1, 2).contiguous()

    return [image(x), image(g), weight_x, weight_g, bias, psi_weight, psi_bias]


def values_and_gradients(gate: Gate, inputs: list[Tensor], grad_out: Tensor, grad_alpha: Tensor) -> list[Tensor]:
    leaves = [t.detach().requires_grad_() for t in inputs]
    out, alpha = gate(*leaves)
    gradients = torch.autograd.grad([out, alpha], leaves, [grad_out.to(out), grad_alpha.to(alpha)])
    return [t.detach() for t in (out, alpha, *gradients)]


def assert_agrees(gate: Gate, shape: Shape, dtype: torch.dtype, device: str, layout: object = None) -> None:
    """Compares in the norm and at the worst element with the reference in float64 on the same rounded inputs.

    A handful of roundings each way: out and alpha within 4 units of the dtype's precision, gradients, which are
    products of three or four rounded factors, within 16; the worst element, relative to the largest, within four times
    that.
    """
    inputs = [t.to(dtype) for t in gate_inputs(shape)]
    if layout is not None:
        inputs[:2] = [t.to(memory_format=layout) for t in inputs[:2]]
    random, (images, pixels) = torch.Generator().manual_seed(1), (shape.images, (shape.height, shape.width))
    grads = [
        torch.empty(images, channels, *pixels).uniform_(0.5, 1.5, generator=random).to(dtype)
        for channels in (shape.channels + shape.gating_channels, 1)
    ]
    wanted = values_and_gradients(attention_gate_reference, [t.double() for t in inputs], *(t.double() for t in grads))
    got = values_and_gradients(gate, [t.to(device) for t in inputs], *(t.to(device) for t in grads))
    for name, a, b in zip(NAMES, got, wanted, strict=True):
        assert a.dtype == dtype
        tolerance = (4 if name in ("out", "alpha") else 16) * torch.finfo(dtype).eps
        worst = assert_near(name, a, b, tolerance).abs().max() / b.abs().max()
        assert worst <= 4 * tolerance, f"{name}: worst element off by {worst:.1e}"
