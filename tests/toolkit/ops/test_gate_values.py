"""Every backend of the gate against the float64 reference: values, gradients, what is saved, the same bits twice."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from comparison import saved_bytes
from gate_cases import NAMES, SHAPES, Gate, Shape, assert_agrees, gate_inputs, values_and_gradients
from torch import Tensor

from attunet.ops import attention_gate
from attunet.ops.gate import cpu_gate
from attunet.ops.gate.reference import attention_gate_reference

BACKENDS = ("reference", "cpu", "triton")
CHANNELS_LAST = torch.channels_last


@pytest.fixture
def square(device: str) -> list[Tensor]:
    """The seven float32 inputs of a square image, on the backend's device, with gradients."""
    return [t.float().to(device).requires_grad_() for t in gate_inputs(SHAPES["square"])]


@pytest.mark.parametrize("layout", [torch.contiguous_format, CHANNELS_LAST], ids=["nchw", "channels_last"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_values_and_gradients(
    gate: Gate, device: str, dtype: torch.dtype, shape: Shape, layout: torch.memory_format
) -> None:
    assert_agrees(gate, shape, dtype, device, layout)


@pytest.mark.parametrize("backend", ["cpu"], indirect=True)
def test_blocks_of_the_cpu_backend_meet(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_gate, "BLOCK_BYTES", dict.fromkeys((2, 4, 8), 1))
    for layout in (torch.contiguous_format, CHANNELS_LAST):
        assert_agrees(gate, Shape(2, 16, 16, 8, 9, 11), torch.float32, "cpu", layout)


def test_inputs_of_different_layouts(gate: Gate, device: str) -> None:
    def with_layouts(
        of_x: torch.memory_format, of_g: torch.memory_format, x: Tensor, g: Tensor, *rest: Tensor
    ) -> object:
        return gate(x.contiguous(memory_format=of_x), g.contiguous(memory_format=of_g), *rest)

    layouts = torch.contiguous_format, CHANNELS_LAST
    for pair in (layouts, layouts[::-1]):
        assert_agrees(partial(with_layouts, *pair), SHAPES["square"], torch.float32, device)


def test_a_window_of_a_larger_tensor(gate: Gate, device: str) -> None:
    def of_windows(x: Tensor, g: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        return gate(*(torch.nn.functional.pad(t, (1, 2, 3, 1))[:, :, 3:-1, 1:-2] for t in (x, g)), *parameters)

    assert_agrees(of_windows, SHAPES["odd, and differing channels"], torch.float32, device)


def test_the_result_has_the_layout_of_the_input(backend: str, square: list[Tensor]) -> None:
    assert attention_gate(*square, backend=backend).is_contiguous()
    inputs = [t.detach().to(memory_format=CHANNELS_LAST).requires_grad_() for t in square[:2]] + square[2:]
    out = attention_gate(*inputs, backend=backend)
    assert out.is_contiguous(memory_format=CHANNELS_LAST)
    for gradient in torch.autograd.grad(out, inputs[:2], torch.ones_like(out)):
        assert gradient.is_contiguous(memory_format=CHANNELS_LAST)


def test_float32_parameters_beside_16_bit_pixels(backend: str, square: list[Tensor]) -> None:
    low = [t.half() if i < 2 else t for i, t in enumerate(square)]
    out = attention_gate(*low, backend=backend)
    assert out.dtype == torch.float16
    gradients = torch.autograd.grad(out.float().sum(), square)
    exact = torch.autograd.grad(attention_gate(*square, backend="reference").sum(), square)
    for a, b in zip(gradients, exact, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0, atol=16 * torch.finfo(torch.float16).eps * float(b.abs().max()))


@pytest.mark.parametrize("wanted", [[0], [1], [2, 3, 4, 5, 6], [6]], ids=["x", "g", "parameters", "psi_bias"])
def test_only_the_gradients_that_are_asked_for(backend: str, square: list[Tensor], wanted: list[int]) -> None:
    inputs = [t.detach().requires_grad_(i in wanted) for i, t in enumerate(square)]
    got = torch.autograd.grad(attention_gate(*inputs, backend=backend).sum(), [inputs[i] for i in wanted])
    exact = torch.autograd.grad(attention_gate(*square, backend="reference").sum(), [square[i] for i in wanted])
    torch.testing.assert_close(got, exact, rtol=1e-4, atol=1e-4)


def test_a_loss_on_alpha_alone(gate: Gate, square: list[Tensor]) -> None:
    got = torch.autograd.grad(gate(*square)[1].sum(), square)
    expected = torch.autograd.grad(attention_gate_reference(*square)[1].sum(), square)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_no_images_in_none_out(gate: Gate, device: str) -> None:
    inputs = [t.float().to(device).requires_grad_() for t in gate_inputs(Shape(0, 8, 8, 4, 4, 4))]
    out, alpha = gate(*inputs)
    assert (out.shape, alpha.shape) == ((0, 16, 4, 4), (0, 1, 4, 4))
    assert not any(gradient.any() for gradient in torch.autograd.grad(out.sum(), inputs))


def test_sums_may_pass_the_largest_float16(backend: str, device: str) -> None:
    """Over 32 x 32 pixels the sums for the weights reach 200,000 before their factor psi, and 300 with it."""
    random = torch.Generator().manual_seed(0)
    x, g = torch.rand(2, 1, 16, 32, 32, generator=random).mul(32).half()
    weight, bias, psi_weight = torch.full((8, 16), 0.00025), torch.full((8,), 0.02), torch.full((8,), 0.00125)
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
def test_what_is_not_a_number_stays_so(gate: Gate, device: str, name: str) -> None:
    """A network that has diverged must not look sound: a NaN reaches every result that it reaches in the reference."""
    inputs = [t.float() for t in gate_inputs(SHAPES["square"])]
    inputs[NAMES[2:].index(name)].flatten()[0] = torch.nan
    ones = torch.ones(2, 32, 8, 8), torch.ones(2, 1, 8, 8)
    wanted = values_and_gradients(attention_gate_reference, inputs, *ones)
    got = values_and_gradients(gate, [t.to(device) for t in inputs], *(t.to(device) for t in ones))
    for result, a, b in zip(NAMES, got, wanted, strict=True):
        assert a.isnan().any() == b.isnan().any(), result


def test_two_backward_passes_give_the_same_bits(gate: Gate, device: str, dtype: torch.dtype) -> None:
    inputs = [t.to(device, dtype) for t in gate_inputs(SHAPES["more tiles than one"])]
    inputs[:2] = [t.to(memory_format=CHANNELS_LAST) for t in inputs[:2]]
    grads = [torch.ones_like(t) for t in gate(*inputs)]
    first, second = (values_and_gradients(gate, inputs, *grads) for _ in range(2))
    for name, a, b in zip(NAMES, first, second, strict=True):
        assert torch.equal(a, b), name


def test_only_the_inputs_are_saved(backend: str, square: list[Tensor]) -> None:
    saved = saved_bytes(lambda: attention_gate(*square, backend=backend))
    given = sum(t.untyped_storage().nbytes() for t in square)
    # The reference keeps the hidden features and alpha besides, which the others save; its convolutions need no bias
    # backward.
    hidden = SHAPES["square"].hidden
    more = 4 * SHAPES["square"].images * 8 * 8 * (hidden + 1) - 4 * (hidden + 1)
    assert saved == given + (more if backend == "reference" else 0)


@pytest.mark.parametrize("backend", ["reference", "cpu"], indirect=True)
def test_derivatives_in_double_precision(backend: str, gate: Gate) -> None:
    assert torch.autograd.gradcheck(gate, [t.requires_grad_() for t in gate_inputs(Shape(2, 5, 3, 4, 3, 2))])
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
