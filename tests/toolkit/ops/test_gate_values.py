"""Every backend of the gate against the float64 reference: values, all gradients, what is saved,
the same bits twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import pytest
import torch
from torch import Tensor

from attunet.ops import attention_gate
from attunet.ops.gate import cpu_gate
from attunet.ops.gate.reference import GateParameters, attention_gate_reference

Gate = Callable[..., tuple[Tensor, Tensor]]
Broken = Callable[[ModuleType, str, str], ModuleType]
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


def assert_agrees(
    gate: Gate, shape: Shape, dtype: torch.dtype, device: str = "cpu", layout: torch.memory_format | None = None
) -> None:
    """Compares in the norm and at the worst element with the reference in float64 on the same rounded inputs.

    A handful of roundings each way: out and alpha within 4 units of the dtype's precision, gradients, which are
    products of three or four rounded factors, within 16; the worst element, relative to the largest, within four times
    that.
    """
    inputs = [t.to(dtype) for t in gate_inputs(shape)]
    if layout is not None:
        inputs[:2] = [t.to(memory_format=layout) for t in inputs[:2]]
    random = torch.Generator().manual_seed(1)
    out_shape = (shape.images, shape.channels + shape.gating_channels, shape.height, shape.width)
    grad_out = torch.empty(out_shape).uniform_(0.5, 1.5, generator=random).to(dtype)
    grad_alpha = torch.empty(shape.images, 1, shape.height, shape.width).uniform_(0.5, 1.5, generator=random).to(dtype)
    wanted = values_and_gradients(
        attention_gate_reference, [t.double() for t in inputs], grad_out.double(), grad_alpha.double()
    )
    got = values_and_gradients(gate, [t.to(device) for t in inputs], grad_out.to(device), grad_alpha.to(device))
    for name, a, b in zip(NAMES, got, wanted, strict=True):
        assert a.shape == b.shape
        assert a.dtype == dtype
        error = a.cpu().double() - b
        tolerance = (4 if name in ("out", "alpha") else 16) * torch.finfo(dtype).eps
        assert error.norm() <= tolerance * b.norm(), f"{name}: relative error {error.norm() / b.norm():.1e}"
        assert error.abs().max() <= 4 * tolerance * b.abs().max(), (
            f"{name}: worst element off by {error.abs().max() / b.abs().max():.1e}"
        )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "channels_last"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_values_and_gradients(
    backend: str, device: str, dtype: torch.dtype, shape: Shape, layout: torch.memory_format
) -> None:
    assert_agrees(partial(attention_gate, backend=backend, return_alpha=True), shape, dtype, device, layout)


def test_blocks_of_the_cpu_backend_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_gate, "BLOCK_BYTES", dict.fromkeys((2, 4, 8), 1))
    shape = Shape(2, 16, 16, 8, 9, 11)
    for layout in (torch.contiguous_format, torch.channels_last):
        assert_agrees(partial(attention_gate, backend="cpu", return_alpha=True), shape, torch.float32, layout=layout)


def gate_with_layout(backend: str, layout_x: torch.memory_format, layout_g: torch.memory_format) -> Gate:
    def gate(x: Tensor, g: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        x, g = x.contiguous(memory_format=layout_x), g.contiguous(memory_format=layout_g)
        return attention_gate(x, g, *parameters, backend=backend, return_alpha=True)

    return gate


def test_inputs_of_different_layouts(backend: str, device: str) -> None:
    layouts = torch.contiguous_format, torch.channels_last
    for pair in (layouts, layouts[::-1]):
        assert_agrees(gate_with_layout(backend, *pair), SHAPES["square"], torch.float32, device)


def test_a_window_of_a_larger_tensor(backend: str, device: str) -> None:
    def gate(x: Tensor, g: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        x, g = (torch.nn.functional.pad(t, (1, 2, 3, 1))[:, :, 3:-1, 1:-2] for t in (x, g))
        return attention_gate(x, g, *parameters, backend=backend, return_alpha=True)

    assert_agrees(gate, SHAPES["odd, and differing channels"], torch.float32, device)


def test_the_answer_comes_in_the_layout_of_the_question(backend: str, device: str) -> None:
    inputs = [t.float().to(device) for t in gate_inputs(SHAPES["square"])]
    assert attention_gate(*inputs, backend=backend).is_contiguous()
    inputs[:2] = [t.to(memory_format=torch.channels_last).requires_grad_() for t in inputs[:2]]
    out = attention_gate(*inputs, backend=backend)
    assert out.is_contiguous(memory_format=torch.channels_last)
    for gradient in torch.autograd.grad(out, inputs[:2], torch.ones_like(out)):
        assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_float32_parameters_beside_16_bit_pixels(backend: str, device: str) -> None:
    inputs = [t.float().to(device).requires_grad_() for t in gate_inputs(SHAPES["square"])]
    low = [t.half() if i < 2 else t for i, t in enumerate(inputs)]
    out = attention_gate(*low, backend=backend)
    assert out.dtype == torch.float16
    gradients = torch.autograd.grad(out.float().sum(), inputs)
    exact = torch.autograd.grad(attention_gate(*inputs, backend="reference").sum(), inputs)
    for a, b in zip(gradients, exact, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0, atol=16 * torch.finfo(torch.float16).eps * float(b.abs().max()))


@pytest.mark.parametrize("wanted", [[0], [1], [2, 3, 4, 5, 6], [6]], ids=["x", "g", "parameters", "psi_bias"])
def test_only_the_gradients_that_are_asked_for(backend: str, device: str, wanted: list[int]) -> None:
    inputs = [t.float().to(device) for t in gate_inputs(SHAPES["square"])]
    for i in wanted:
        inputs[i].requires_grad_()
    out = attention_gate(*inputs, backend=backend)
    exact = [t.detach().requires_grad_() for t in inputs]
    expected = torch.autograd.grad(attention_gate(*exact, backend="reference").sum(), [exact[i] for i in wanted])
    torch.testing.assert_close(
        torch.autograd.grad(out.sum(), [inputs[i] for i in wanted]), expected, rtol=1e-4, atol=1e-4
    )


def test_a_loss_on_alpha_alone(backend: str, device: str) -> None:
    inputs = [t.float().to(device).requires_grad_() for t in gate_inputs(SHAPES["square"])]
    got = torch.autograd.grad(attention_gate(*inputs, backend=backend, return_alpha=True)[1].sum(), inputs)
    expected = torch.autograd.grad(attention_gate(*inputs, backend="reference", return_alpha=True)[1].sum(), inputs)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_no_images_in_none_out(backend: str, device: str) -> None:
    inputs = [t.float().to(device).requires_grad_() for t in gate_inputs(Shape(0, 8, 8, 4, 4, 4))]
    out, alpha = attention_gate(*inputs, backend=backend, return_alpha=True)
    assert out.shape == (0, 16, 4, 4)
    assert alpha.shape == (0, 1, 4, 4)
    out.sum().backward()
    for t in inputs:
        assert t.grad is not None
        assert not t.grad.any()


def test_sums_may_pass_the_largest_float16(backend: str, device: str) -> None:
    """Over 128 x 128 pixels the sums for the weights reach 200,000 before their factor psi, and 300 with it."""
    random = torch.Generator().manual_seed(0)
    x, g = torch.rand(2, 1, 16, 128, 128, generator=random).mul(8).half()
    weight, bias, psi_weight = torch.full((8, 16), 0.001), torch.full((8,), 0.02), torch.full((8,), 0.00125)
    inputs = [x, g, weight, weight.clone(), bias, psi_weight, torch.zeros(1)]
    leaves = [t.to(device).requires_grad_() for t in inputs]
    out = attention_gate(*leaves, backend=backend)
    got = torch.autograd.grad(out, leaves, torch.full_like(out, 0.2))
    exact = [t.double().requires_grad_() for t in inputs]
    wanted = torch.autograd.grad(attention_gate(*exact, backend="reference").sum() * 0.2, exact)
    for name, a, b in zip(NAMES[2:], got, wanted, strict=True):
        assert (a.cpu() - b).norm() <= 0.01 * b.norm(), name


def test_an_image_larger_than_32_bits_count(backend: str, device: str) -> None:
    """Channels 2^30 values apart in a storage of which a few pages are touched."""
    inputs = [t.half() for t in gate_inputs(Shape(1, 3, 3, 2, 2, 2))]
    expected = attention_gate(*(t.to(device) for t in inputs), backend=backend)
    far = torch.empty(2**31 + 4, dtype=torch.float16, device=device).as_strided((1, 3, 2, 2), (2**31 + 4, 2**30, 2, 1))
    far.copy_(inputs[0])
    assert torch.equal(attention_gate(far, *(t.to(device) for t in inputs[1:]), backend=backend), expected)


@pytest.mark.parametrize("name", NAMES[2:])
def test_what_is_not_a_number_stays_so(backend: str, device: str, name: str) -> None:
    """A network that has diverged must not look sound: one NaN reaches every result that it reaches in the
    reference.
    """
    inputs = [t.float() for t in gate_inputs(SHAPES["square"])]
    inputs[NAMES[2:].index(name)].flatten()[0] = torch.nan
    ones = torch.ones(2, 32, 8, 8), torch.ones(2, 1, 8, 8)
    wanted = values_and_gradients(attention_gate_reference, inputs, *ones)
    gate = partial(attention_gate, backend=backend, return_alpha=True)
    got = values_and_gradients(gate, [t.to(device) for t in inputs], *(t.to(device) for t in ones))
    for result, a, b in zip(NAMES, got, wanted, strict=True):
        assert a.isnan().any() == b.isnan().any(), result


def test_two_backward_passes_give_the_same_bits(backend: str, device: str, dtype: torch.dtype) -> None:
    inputs = [t.to(device, dtype) for t in gate_inputs(SHAPES["more tiles than one"])]
    inputs[:2] = [t.to(memory_format=torch.channels_last) for t in inputs[:2]]
    gate = partial(attention_gate, backend=backend, return_alpha=True)
    grads = [torch.ones_like(t) for t in gate(*inputs)]
    first, second = (values_and_gradients(gate, inputs, *grads) for _ in range(2))
    for name, a, b in zip(NAMES, first, second, strict=True):
        assert torch.equal(a, b), name


def test_only_the_inputs_are_saved(backend: str, device: str) -> None:
    inputs = [t.float().to(device).requires_grad_() for t in gate_inputs(SHAPES["square"])]
    saved: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        attention_gate(*inputs, backend=backend)
    given = sum(t.untyped_storage().nbytes() for t in inputs)
    # The reference keeps the hidden features and alpha besides, which the others save; its convolutions need no bias
    # backward.
    hidden = SHAPES["square"].hidden
    more = 4 * SHAPES["square"].images * 8 * 8 * (hidden + 1) - 4 * (hidden + 1)
    assert sum(saved.values()) == given + (more if backend == "reference" else 0)


def one_multiprocessor(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few programs that each takes several tiles, as they do of the sizes that networks have."""
    from attunet.ops.gate import triton_gate

    monkeypatch.setattr(triton_gate, "num_multiprocessors", lambda x: 1)


@pytest.mark.parametrize("backend", ["triton"], indirect=True)
def test_several_tiles_for_a_program(
    backend: str, device: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_multiprocessor(monkeypatch)
    gate = partial(attention_gate, backend=backend, return_alpha=True)
    assert_agrees(gate, Shape(3, 64, 48, 32, 11, 13), dtype, device, torch.channels_last)


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


@pytest.mark.parametrize(("old", "new"), BREAKAGES.values(), ids=BREAKAGES.keys())
@pytest.mark.parametrize("backend", ["triton"], indirect=True)
def test_a_broken_kernel_is_caught(
    backend: str, device: str, old: str, new: str, broken: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attunet.ops.gate import triton_gate, triton_kernels

    one_multiprocessor(monkeypatch)
    monkeypatch.setattr(triton_gate, "kernels", broken(triton_kernels, old, new))
    with pytest.raises(AssertionError):
        assert_agrees(
            partial(attention_gate, backend=backend, return_alpha=True),
            SHAPES["more tiles than one"],
            torch.float32,
            device,
        )


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


@pytest.mark.parametrize(("old", "new"), STREAMED_BREAKAGES.values(), ids=STREAMED_BREAKAGES.keys())
@pytest.mark.parametrize("backend", ["triton"], indirect=True)
def test_a_broken_streamed_kernel_is_caught(
    backend: str, device: str, old: str, new: str, broken: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attunet.ops.gate import streamed_gate, streamed_kernels

    monkeypatch.setattr(streamed_gate, "num_multiprocessors", lambda x: 1)
    monkeypatch.setattr(streamed_gate, "FINISH_TILE", (1, 32))
    monkeypatch.setattr(streamed_gate, "kernels", broken(streamed_kernels, old, new))
    shape = Shape(2, 160, 160, 70, 9, 11)
    with pytest.raises(AssertionError):
        assert_agrees(
            partial(attention_gate, backend=backend, return_alpha=True),
            shape,
            torch.float16,
            device,
            torch.channels_last,
        )


@pytest.mark.parametrize("backend", ["triton"], indirect=True)
def test_a_streamed_gate_of_several_tiles(backend: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from attunet.ops.gate import streamed_gate

    monkeypatch.setattr(streamed_gate, "num_multiprocessors", lambda x: 1)
    monkeypatch.setattr(streamed_gate, "FINISH_TILE", (1, 32))
    gate = partial(attention_gate, backend=backend, return_alpha=True)
    for layout in (torch.channels_last, torch.contiguous_format):
        assert_agrees(gate, Shape(2, 160, 160, 70, 9, 11), torch.float16, device, layout)


def test_a_broken_cpu_gate_is_caught(broken: Broken) -> None:
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
        assert_agrees(BrokenGate.apply, SHAPES["square"], torch.float32)


@pytest.mark.parametrize("backend", ["reference", "cpu"], indirect=True)
def test_gradcheck_in_double_precision(backend: str) -> None:
    inputs = [t.requires_grad_() for t in gate_inputs(Shape(2, 5, 3, 4, 3, 2))]
    assert torch.autograd.gradcheck(partial(attention_gate, backend=backend, return_alpha=True), inputs)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_gradgradcheck(backend: str) -> None:
    inputs = [t.requires_grad_() for t in gate_inputs(Shape(1, 2, 3, 2, 2, 2))]
    for return_alpha in (True, False):
        assert torch.autograd.gradgradcheck(partial(attention_gate, backend=backend, return_alpha=return_alpha), inputs)


def test_a_penalty_on_gradients(backend: str, device: str) -> None:
    def gradients(gate: Callable[..., Tensor], inputs: list[Tensor]) -> tuple[Tensor, ...]:
        leaves = [t.detach().requires_grad_() for t in inputs]
        out = gate(*leaves)
        (grad_x,) = torch.autograd.grad(out.square().sum(), leaves[:1], create_graph=True)
        return torch.autograd.grad(out.sum() + grad_x.square().sum(), leaves)

    inputs = gate_inputs(SHAPES["square"])
    wanted = gradients(partial(attention_gate, backend="reference"), inputs)
    got = gradients(partial(attention_gate, backend=backend), [t.to(device, torch.float32) for t in inputs])
    for name, a, b in zip(NAMES[2:], got, wanted, strict=True):
        assert (a.cpu() - b).norm() <= 1e-5 * b.norm(), name
