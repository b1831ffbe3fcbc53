"""Every backend of batch norm with ReLU against the float64 reference: values, gradients, running statistics."""

from collections.abc import Callable
from functools import partial
from types import ModuleType

import pytest
import torch
from comparison import assert_near, saved_bytes
from torch import Tensor

from attunet.errors import InputError
from attunet.ops import batch_norm_relu

Norm = partial[Tensor]
Agrees = Callable[..., None]
BACKENDS = ("reference", "torch", "triton")
NAMES = ("out", "x", "weight", "bias", "running_mean", "running_var")
SHAPES = {
    "square": (2, 16, 8, 8),
    "odd": (3, 5, 7, 9),
    "one pixel": (4, 3, 1, 1),
    "one channel": (2, 1, 3, 6),
    "more tiles than one": (2, 64, 21, 13),
    "more columns than one": (2, 136, 5, 6),
}


def norm_inputs(shape: tuple[int, ...], mean: float = 1.0) -> list[Tensor]:
    """x, weight, bias, running mean and variance in float64, channels-last.

    Images differ in their mean, so that parts of the batch do; values in a channel are evenly spaced, so that few lie
    so near the ReLU's kink that another rounding would rightly give another gradient.
    """
    random = torch.Generator().manual_seed(0)
    channels, values = shape[1], shape[0] * shape[2] * shape[3]
    rank = torch.stack([torch.randperm(values, generator=random) for _ in range(channels)], dim=1).double()
    x = (2 * rank / max(1, values - 1) - 1) * torch.rand(channels, generator=random).add(0.5) + mean
    x = x.view(shape[0], *shape[2:], channels).permute(0, 3, 1, 2) + torch.arange(shape[0])[:, None, None, None]
    weight = torch.rand(channels, generator=random).double() + 0.5
    bias = torch.randint(-1, 2, (channels,), generator=random).double() * 0.31 + 0.007
    return [x, weight, bias, *(torch.full((channels,), v).double() for v in (mean, 1.5))]


def values_and_gradients(norm: Norm, inputs: list[Tensor], grad_out: Tensor, *, training: bool) -> list[Tensor]:
    leaves, running = [t.detach().requires_grad_() for t in inputs[:3]], [t.clone() for t in inputs[3:]]
    out = norm(*leaves, *running, training=training)
    return [t.detach() for t in (out, *torch.autograd.grad(out, leaves, grad_out), *running)]


@pytest.fixture
def norm(backend: str) -> Norm:
    return partial(batch_norm_relu, backend=backend)


@pytest.fixture
def assert_agrees(norm: Norm, device: str) -> Agrees:
    """Compares with the float64 reference on the same rounded inputs; vectors are float32, as under autocast."""

    def check(shape: tuple[int, ...], dtype: torch.dtype, *, training: bool = True, mean: float = 1.0) -> None:
        x, *vectors = norm_inputs(shape, mean)
        inputs = [x.to(dtype), *(t.float() for t in vectors)]
        grad_out = torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        grad_out = grad_out.to(memory_format=torch.channels_last)
        reference = partial(batch_norm_relu, backend="reference")
        wanted = values_and_gradients(reference, [t.double() for t in inputs], grad_out.double(), training=training)
        got = values_and_gradients(norm, [t.to(device) for t in inputs], grad_out.to(device), training=training)
        for name, a, b in zip(NAMES, got, wanted, strict=True):
            assert a.dtype == (dtype if name in ("out", "x") else torch.float32)
            rounded = dtype if norm.keywords["backend"] == "torch" else a.dtype  # torch rounds before its ReLU
            assert_near(name, a, b, 16 * torch.finfo(rounded).eps * (1 + mean))

    return check


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_values_and_gradients(
    assert_agrees: Agrees, dtype: torch.dtype, shape: tuple[int, ...], training: bool
) -> None:
    assert_agrees(shape, dtype, training=training)


def test_a_mean_far_from_zero(assert_agrees: Agrees) -> None:
    """The mean of the squares less the square of the mean would have no correct digit."""
    assert_agrees((2, 8, 24, 24), torch.float32, mean=300.0)


@pytest.fixture
def several_tiles(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So few programs that each reduces several tiles, as with the sizes that networks have."""
    from attunet.ops.norm import triton_norm

    monkeypatch.setattr(triton_norm, "num_multiprocessors", lambda x: 1)
    monkeypatch.setattr(triton_norm, "PROGRAMS_PER_MULTIPROCESSOR", 3)


@pytest.mark.usefixtures("several_tiles")
@pytest.mark.parametrize("backend", ["triton"], indirect=True)
def test_several_tiles_for_a_program(assert_agrees: Agrees, dtype: torch.dtype) -> None:
    assert_agrees((3, 64, 24, 23), dtype)


BREAKAGES = {
    "shift not added again": ("tl.store(partial + C, shift + sums / count", "tl.store(partial + C, sums / count"),
    "last tile taken for full": ("count -= (tiles * BLOCK_P - rows)", "count -= 0 * (tiles * BLOCK_P - rows)"),
    "rows outside counted": (
        "tl.where((row < rows)[:, None], _load_tile(x",
        "tl.where((row < 2 * rows)[:, None], _load_tile(x",
    ),
    "parts not recentred": (" + n * deviation * deviation", ""),
    "biased running variance": ("deviations / (number - 1.0)", "deviations / (0.9 * number)"),
    "no kink": ("b[None, :] <= 0.0, 0.0, grad)", "b[None, :] <= -9.0, 0.0, grad)"),
    "last tile only": ("sum_dy_x += dy * deviation\n    partial", "sum_dy_x = dy * deviation\n    partial"),
    "statistics taken for constants": (
        "dy -= mean_dy[None, :] + deviation",
        "dy -= mean_dy[None, :] + 0.0 * deviation",
    ),
    "no ReLU": ("tl.where(y <= 0.0, 0.0, y)", "y"),
}


@pytest.mark.usefixtures("several_tiles")
@pytest.mark.parametrize(("old", "new"), BREAKAGES.values(), ids=BREAKAGES.keys())
@pytest.mark.parametrize("backend", ["triton"], indirect=True)
def test_a_broken_kernel_is_caught(
    assert_agrees: Agrees, old: str, new: str, break_kernels: Callable[[ModuleType, str, str], None]
) -> None:
    from attunet.ops.norm import triton_norm

    break_kernels(triton_norm, old, new)
    with pytest.raises(AssertionError):
        assert_agrees((3, 16, 24, 23), torch.float32)


def test_what_is_not_a_number_stays_so(norm: Norm, device: str) -> None:
    """A network that has diverged must not look sound."""
    inputs = [t.float().to(device) for t in norm_inputs((2, 16, 8, 8))]
    inputs[0][0, 3, 2, 1] = torch.nan
    out, grad_x, *_ = values_and_gradients(norm, inputs, torch.ones_like(inputs[0]), training=True)
    assert out.isnan().any()
    assert grad_x.isnan().any()
    assert not out[:, 4].isnan().any()


def test_two_passes_give_the_same_bits(norm: Norm, device: str, dtype: torch.dtype) -> None:
    inputs = [t.to(device, dtype if i == 0 else torch.float32) for i, t in enumerate(norm_inputs((2, 64, 21, 13)))]
    first, second = (values_and_gradients(norm, inputs, torch.ones_like(inputs[0]), training=True) for _ in range(2))
    for name, a, b in zip(NAMES, first, second, strict=True):
        assert torch.equal(a, b), name


def test_the_memory_format_stays(backend: str, device: str) -> None:
    x, *vectors = [t.float().to(device) for t in norm_inputs((2, 16, 8, 8))]
    out = batch_norm_relu(x.requires_grad_(), *vectors, training=True, backend=backend)
    (gradient,) = torch.autograd.grad(out, [x], torch.ones_like(out).contiguous())
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("backend", ["triton"], indirect=True)
def test_only_x_and_vectors_are_saved(norm: Norm, device: str) -> None:
    x, *vectors = [t.float().to(device) for t in norm_inputs((2, 16, 8, 8))]
    assert saved_bytes(lambda: norm(x.requires_grad_(), *vectors, training=True)) <= x.nbytes + 5 * 16 * 4


@pytest.mark.parametrize("backend", ["triton"], indirect=True)
def test_opcheck(backend: str, device: str) -> None:
    x, weight, bias, running_mean, running_var = [t.float().to(device) for t in norm_inputs((2, 8, 4, 5))]
    operators = torch.ops.attunet
    torch.library.opcheck(operators.norm_statistics.default, (x, running_mean, running_var, 0.1, False))
    mean, var, count = operators.norm_statistics(x, running_mean, running_var, 0.1, False)
    leaves = [t.detach().requires_grad_() for t in (x, weight, bias)]
    for number in (count, None):
        torch.library.opcheck(operators.norm_relu.default, (*leaves, mean, var, number, 1e-5, False))
        torch.library.opcheck(
            operators.norm_relu_backward.default, (x, x, weight, bias, mean, var, number, 1e-5, False)
        )


@pytest.mark.parametrize("backend", ["triton"], indirect=True)
def test_a_second_derivative_is_refused(backend: str, device: str) -> None:
    x, *vectors = [t.float().to(device) for t in norm_inputs((2, 8, 4, 5))]
    out = batch_norm_relu(x.requires_grad_(), *vectors, training=True, backend="triton")
    (gradient,) = torch.autograd.grad(out.sum(), [x], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.sum().backward()


@pytest.mark.parametrize("backend", ["reference", "torch"], indirect=True)
def test_gradcheck_in_double_precision(backend: str) -> None:
    inputs = norm_inputs((2, 3, 4, 3))
    leaves = [t.requires_grad_() for t in inputs[:3]]

    def norm(*tensors: Tensor) -> Tensor:
        return batch_norm_relu(*tensors, *(t.clone() for t in inputs[3:]), training=True, backend=backend)

    assert torch.autograd.gradcheck(norm, leaves)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "cuda"}, "backend must be one of auto, reference, torch, triton, got 'cuda'"),
        ({"x": torch.zeros(8, 6, 5)}, r"x must be \(N, C, H, W\)"),
        (
            {"x": torch.zeros(2, 8, 6, 5, dtype=torch.int32)},
            r"x must be \(N, C, H, W\) in torch.float16, .*, got .* in torch.int32",
        ),
        ({"weight": torch.zeros(7)}, r"weight must be of shape \(8,\), got \(7,\)"),
        (
            {"running_var": torch.zeros(8, dtype=torch.float16)},
            "running_var must be torch.float32 or float32, got torch.float16",
        ),
        ({"bias": torch.zeros(8, device="meta")}, "bias must be on cpu, got meta"),
        ({"x": torch.zeros(1, 8, 1, 1), "training": True}, r"more than one value per channel, got x \(1, 8, 1, 1\)"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_wrong_input_is_one_line(change: dict, message: str) -> None:
    names = ["x", "weight", "bias", "running_mean", "running_var"]
    arguments = dict(zip(names, [t.float() for t in norm_inputs((2, 8, 6, 5))], strict=True)) | change
    with pytest.raises(InputError, match=message) as error:
        batch_norm_relu(**arguments)
    assert "\n" not in str(error.value)


def test_no_images_in_none_out(backend: str, device: str) -> None:
    x = torch.zeros(0, 4, 3, 3, device=device).to(memory_format=torch.channels_last).requires_grad_()
    vectors = [torch.ones(4, device=device) for _ in range(4)]
    out = batch_norm_relu(x, *vectors, backend=backend)
    assert out.shape == (0, 4, 3, 3)
    (gradient,) = torch.autograd.grad(out.sum(), [x])
    assert gradient.shape == x.shape
