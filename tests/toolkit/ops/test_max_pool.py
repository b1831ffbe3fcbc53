"""Every backend of max pooling gives torch's own values and gradients bit by bit, ties and NaN included."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from comparison import saved_bytes
from torch import Tensor
from torch.nn import functional as F

from attunet.errors import InputError
from attunet.models import UNet
from attunet.ops import max_pool
from attunet.ops.max_pool import choose_backend

BACKENDS = ("torch", "triton")
SHAPES = {
    "square": (2, 16, 8, 8),
    "flat": (3, 5, 2, 14),
    "one window": (4, 3, 2, 2),
    "one channel": (2, 1, 4, 6),
    "more tiles than one": (2, 64, 22, 14),
    "more columns than one": (2, 136, 6, 4),
    "empty": (0, 8, 4, 4),
}


def pool_input(shape: tuple[int, ...]) -> Tensor:
    """Few different values, so that windows have ties; some are not a number."""
    random = torch.Generator().manual_seed(0)
    x = torch.randint(-3, 3, shape, generator=random).float()
    x[torch.rand(shape, generator=random) < 0.05] = torch.nan
    return x.to(memory_format=torch.channels_last)


def values_and_gradient(pool: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The result, and the gradient for a gradient of the result that differs everywhere."""
    leaf = x.detach().requires_grad_()
    out = pool(leaf)
    grad_out = torch.arange(out.numel(), device=out.device).remainder(251).to(out.dtype).view(out.shape)
    (gradient,) = torch.autograd.grad(out, [leaf], grad_out)
    return out.detach().cpu(), gradient.cpu()


def assert_equals_torch(shape: tuple[int, ...], dtype: torch.dtype, device: str, backend: str) -> None:
    x = pool_input(shape).to(dtype)
    wanted = values_and_gradient(lambda t: F.max_pool2d(t, 2), x)
    got = values_and_gradient(lambda t: max_pool(t, backend=backend), x.to(device))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
        assert a.is_contiguous(memory_format=torch.channels_last) or not a.numel()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_values_and_gradients(backend: str, device: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    assert_equals_torch(shape, dtype, device, backend)


def test_without_a_gradient_the_values_are_the_same(backend: str, device: str) -> None:
    x = pool_input((2, 16, 8, 8)).to(device)
    with torch.no_grad():
        torch.testing.assert_close(max_pool(x, backend=backend), F.max_pool2d(x, 2), rtol=0, atol=0, equal_nan=True)


BREAKAGES = {
    "last of equal values": ("(value > largest)", "(value >= largest)"),
    "NaN lost": (" | (value != value)", ""),
    "row below forgotten": ("window + 2 * width * C, mask, 2)", "window, mask, 2)"),
    "rows of windows skipped": ("row // width * (2 * width)", "row // width * width"),
    "gradient of one place lost": ("index == 3, gradient", "index == 4, gradient"),
}


@pytest.mark.parametrize(("old", "new"), BREAKAGES.values(), ids=BREAKAGES.keys())
@pytest.mark.parametrize("backend", ["triton"], indirect=True)
def test_a_broken_kernel_is_caught(
    backend: str, device: str, old: str, new: str, break_kernels: Callable[[ModuleType, str, str], None]
) -> None:
    from attunet.ops.pool import triton_pool

    break_kernels(triton_pool, old, new)
    with pytest.raises(AssertionError):
        assert_equals_torch((2, 16, 12, 10), torch.float32, device, backend)


@pytest.mark.parametrize("backend", ["triton"], indirect=True)
def test_one_byte_for_each_result_is_saved(backend: str, device: str) -> None:
    x = pool_input((2, 16, 8, 8)).to(device).requires_grad_()
    assert saved_bytes(lambda: max_pool(x, backend=backend)) == x.numel() / 4


@pytest.mark.parametrize("backend", ["triton"], indirect=True)
def test_opcheck(backend: str, device: str) -> None:
    x = torch.rand(2, 8, 4, 6, device=device).to(memory_format=torch.channels_last)
    torch.library.opcheck(torch.ops.attunet.max_pool.default, (x.requires_grad_(),))
    out, chosen = torch.ops.attunet.max_pool(x.detach())
    torch.library.opcheck(torch.ops.attunet.max_pool_backward.default, (out, chosen))


@pytest.mark.parametrize("backend", ["triton"], indirect=True)
def test_a_second_derivative_is_refused(backend: str, device: str) -> None:
    x = torch.rand(2, 8, 4, 6, device=device).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.ones(1, device=device, requires_grad=True)
    (gradient,) = torch.autograd.grad((max_pool(x, backend="triton") * weight).sum(), [x], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.sum().backward()


@pytest.mark.parametrize("backend", ["triton"], indirect=True)
def test_a_network_compiles_without_a_graph_break(backend: str, device: str) -> None:
    torch.manual_seed(0)
    network = (
        UNet(in_channels=1, num_classes=3, base_width=4, depth=2).to(device, memory_format=torch.channels_last).eval()
    )
    x = torch.randn(2, 1, 16, 24, device=device)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), network(x))


def test_odd_sizes_and_other_memory_formats_are_torch_s(device: str, backend: str) -> None:
    odd, contiguous = torch.rand(2, 3, 5, 6, device=device), torch.rand(2, 3, 4, 6, device=device)
    for x in (odd, odd.to(memory_format=torch.channels_last), contiguous):
        assert choose_backend(x) == "torch"
        assert torch.equal(max_pool(x), F.max_pool2d(x, 2))
        with pytest.raises(InputError, match="backend triton"):
            max_pool(x, backend="triton")


@pytest.mark.parametrize(
    "x",
    [torch.rand(3, 4, 4), torch.rand(1, 1, 1, 4), torch.ones(1, 1, 4, 4, dtype=torch.int32)],
    ids=["3D", "flat", "int"],
)
def test_wrong_input(x: Tensor) -> None:
    with pytest.raises(InputError, match=r"max_pool: x must be \(N, C, H, W\)"):
        max_pool(x)
