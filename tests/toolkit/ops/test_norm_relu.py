"""Every backend of batch norm with ReLU against the float64 reference:
values, gradients, running statistics, the same bits twice.
"""

from collections.abc import Callable
from functools import partial
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from attunet.errors import InputError
from attunet.models import AttentionUNet
from attunet.models.unet import DoubleConv
from attunet.ops import batch_norm_relu
from attunet.ops.norm_relu import choose_backend

Norm = partial[Tensor]
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
    weight, bias = (
        torch.rand(channels, generator=random).double() + 0.5,
        torch.randint(-1, 2, (channels,), generator=random).double(),
    )
    return [
        x,
        weight,
        bias * 0.31 + 0.007,
        torch.full((channels,), mean).double(),
        torch.full((channels,), 1.5).double(),
    ]


def values_and_gradients(norm: Norm, inputs: list[Tensor], grad_out: Tensor, *, training: bool) -> list[Tensor]:
    leaves, running = [t.detach().requires_grad_() for t in inputs[:3]], [t.clone() for t in inputs[3:]]
    out = norm(*leaves, *running, training=training)
    return [t.detach() for t in (out, *torch.autograd.grad(out, leaves, grad_out), *running)]


def assert_agrees(
    norm: Norm, shape: tuple[int, ...], dtype: torch.dtype, device: str, *, training: bool, mean: float = 1.0
) -> None:
    """Compares in the norm with the reference in float64 on the same rounded inputs;
    vectors are float32, as under autocast.
    """
    inputs = norm_inputs(shape, mean)
    inputs = [inputs[0].to(dtype), *(t.float() for t in inputs[1:])]
    grad_out = (
        torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(dtype).to(memory_format=torch.channels_last)
    )
    reference = partial(batch_norm_relu, backend="reference")
    wanted = values_and_gradients(reference, [t.double() for t in inputs], grad_out.double(), training=training)
    got = values_and_gradients(norm, [t.to(device) for t in inputs], grad_out.to(device), training=training)
    for name, a, b in zip(NAMES, got, wanted, strict=True):
        assert a.dtype == (dtype if name in ("out", "x") else torch.float32)
        rounded = dtype if norm.keywords["backend"] == "torch" else a.dtype  # torch rounds before its ReLU
        tolerance = 16 * torch.finfo(rounded).eps * (1 + mean)
        error = a.cpu().double() - b
        assert error.norm() <= tolerance * b.norm() + 1e-7, f"{name}: relative error {error.norm() / b.norm():.1e}"


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_values_and_gradients(
    norm_backend: str, device: str, dtype: torch.dtype, shape: tuple[int, ...], training: bool
) -> None:
    assert_agrees(partial(batch_norm_relu, backend=norm_backend), shape, dtype, device, training=training)


def test_a_mean_far_from_zero(norm_backend: str, device: str) -> None:
    """The mean of the squares less the square of the mean would have no correct digit."""
    assert_agrees(
        partial(batch_norm_relu, backend=norm_backend), (2, 8, 24, 24), torch.float32, device, training=True, mean=300.0
    )


@pytest.mark.parametrize("norm_backend", ["triton"], indirect=True)
def test_several_tiles_for_a_program(
    norm_backend: str, device: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_multiprocessor(monkeypatch)
    assert_agrees(partial(batch_norm_relu, backend="triton"), (3, 64, 40, 41), dtype, device, training=True)


def one_multiprocessor(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few programs that each reduces several tiles, as with the sizes that networks have."""
    from attunet.ops.norm import triton_norm

    monkeypatch.setattr(triton_norm, "num_multiprocessors", lambda x: 1)
    monkeypatch.setattr(triton_norm, "PROGRAMS_PER_MULTIPROCESSOR", 3)


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


@pytest.mark.parametrize(("old", "new"), BREAKAGES.values(), ids=BREAKAGES.keys())
@pytest.mark.parametrize("norm_backend", ["triton"], indirect=True)
def test_a_broken_kernel_is_caught(
    norm_backend: str,
    device: str,
    old: str,
    new: str,
    broken: Callable[[ModuleType, str, str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from attunet.ops.norm import norm_kernels, triton_norm

    one_multiprocessor(monkeypatch)
    monkeypatch.setattr(triton_norm, "kernels", broken(norm_kernels, old, new))
    with pytest.raises(AssertionError):
        assert_agrees(partial(batch_norm_relu, backend="triton"), (3, 16, 24, 23), torch.float32, device, training=True)


def test_what_is_not_a_number_stays_so(norm_backend: str, device: str) -> None:
    """A network that has diverged must not look sound."""
    inputs = [t.float().to(device) for t in norm_inputs((2, 16, 8, 8))]
    inputs[0][0, 3, 2, 1] = torch.nan
    results = values_and_gradients(
        partial(batch_norm_relu, backend=norm_backend), inputs, torch.ones_like(inputs[0]), training=True
    )
    assert all(result.isnan().any() for result in results[:2])
    assert not results[0][:, 4].isnan().any()


def test_two_passes_give_the_same_bits(norm_backend: str, device: str, dtype: torch.dtype) -> None:
    inputs = [t.to(device, dtype if i == 0 else torch.float32) for i, t in enumerate(norm_inputs((2, 64, 21, 13)))]
    norm = partial(batch_norm_relu, backend=norm_backend)
    first, second = (values_and_gradients(norm, inputs, torch.ones_like(inputs[0]), training=True) for _ in range(2))
    for name, a, b in zip(NAMES, first, second, strict=True):
        assert torch.equal(a, b), name


def test_the_memory_format_stays(norm_backend: str, device: str) -> None:
    x, *vectors = [t.float().to(device) for t in norm_inputs((2, 16, 8, 8))]
    out = batch_norm_relu(x.requires_grad_(), *vectors, training=True, backend=norm_backend)
    (gradient,) = torch.autograd.grad(out, [x], torch.ones_like(out).contiguous())
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("norm_backend", ["triton"], indirect=True)
def test_only_x_and_vectors_are_saved(norm_backend: str, device: str) -> None:
    x, *vectors = [t.float().to(device) for t in norm_inputs((2, 16, 8, 8))]
    saved: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        batch_norm_relu(x.requires_grad_(), *vectors, training=True, backend=norm_backend)
    assert sum(saved.values()) <= x.nbytes + 5 * 16 * 4


@pytest.mark.parametrize("norm_backend", ["triton"], indirect=True)
def test_opcheck(norm_backend: str, device: str) -> None:
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


@pytest.mark.parametrize("norm_backend", ["triton"], indirect=True)
def test_a_second_derivative_is_refused(norm_backend: str, device: str) -> None:
    x, *vectors = [t.float().to(device) for t in norm_inputs((2, 8, 4, 5))]
    out = batch_norm_relu(x.requires_grad_(), *vectors, training=True, backend="triton")
    (gradient,) = torch.autograd.grad(out.sum(), [x], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.sum().backward()


@pytest.mark.parametrize("norm_backend", ["reference", "torch"], indirect=True)
def test_gradcheck_in_double_precision(norm_backend: str) -> None:
    inputs = norm_inputs((2, 3, 4, 3))
    leaves = [t.requires_grad_() for t in inputs[:3]]

    def norm(*tensors: Tensor) -> Tensor:
        return batch_norm_relu(*tensors, *(t.clone() for t in inputs[3:]), training=True, backend=norm_backend)

    assert torch.autograd.gradcheck(norm, leaves)


def test_a_network_compiles_without_a_graph_break_and_trains_alike(norm_backend: str, device: str) -> None:
    torch.manual_seed(0)
    networks = [
        AttentionUNet(in_channels=1, num_classes=3, base_width=4, depth=2, norm_backend=name).to(
            device, memory_format=torch.channels_last
        )
        for name in (norm_backend, "reference")
    ]
    networks[1].load_state_dict(networks[0].state_dict())
    x = torch.randn(2, 1, 16, 24, device=device)
    compiled = torch.compile(networks[0], fullgraph=True, backend="aot_eager")
    results = []
    for run, network in ((compiled, networks[0]), (networks[1], networks[1])):
        out = run(x)
        results.append([out, *torch.autograd.grad(out.square().mean(), list(network.parameters()))])
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(networks[0].state_dict(), networks[1].state_dict(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(networks[0].eval()(x), networks[1].eval()(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("norm_backend", ["triton"], indirect=True)
def test_auto_takes_the_kernels_for_channels_last_alone(norm_backend: str, device: str) -> None:
    x = torch.zeros(2, 4, 3, 3, device=device)
    assert choose_backend(x.to(memory_format=torch.channels_last)) == "triton"
    assert choose_backend(x) == "torch"
    with pytest.raises(InputError, match="backend triton takes channels-last tensors"):
        choose_backend(x, "triton")


def test_activation_checkpointing_changes_nothing(norm_backend: str, device: str) -> None:
    results = []
    for recomputed in (False, True):
        torch.manual_seed(0)
        network = AttentionUNet(in_channels=1, num_classes=3, base_width=4, depth=2, norm_backend=norm_backend)
        network = network.to(device, memory_format=torch.channels_last)
        network.activation_checkpointing = recomputed
        out = network(torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)).to(device))
        results.append([*torch.autograd.grad(out.square().mean(), list(network.parameters())), *network.buffers()])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_on_the_cpu_a_block_is_bitwise_torchs_own_layers() -> None:
    def layers(channels: int, width: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]

    torch.manual_seed(0)
    block = DoubleConv(3, 8, norm_backend="torch")
    plain = nn.Sequential(*layers(3, 8), *layers(8, 8))
    assert list(block.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(block.state_dict())
    x = torch.randn(2, 3, 12, 10).to(memory_format=torch.channels_last)
    results = []
    for network in (block, plain):
        out = network(x)
        results.append(
            [
                out,
                *torch.autograd.grad(out.square().mean(), list(network.parameters())),
                *network.buffers(),
                network.eval()(x),
            ]
        )
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


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


def test_no_images_in_none_out(norm_backend: str, device: str) -> None:
    x = torch.zeros(0, 4, 3, 3, device=device).to(memory_format=torch.channels_last).requires_grad_()
    vectors = [torch.ones(4, device=device) for _ in range(4)]
    out = batch_norm_relu(x, *vectors, backend=norm_backend)
    assert out.shape == (0, 4, 3, 3)
    (gradient,) = torch.autograd.grad(out.sum(), [x])
    assert gradient.shape == x.shape
