"""Batch norm with ReLU in networks: torch.compile, checkpointing, the choice of a backend, torch's own layers."""

import pytest
import torch
from torch import nn

from attunet.errors import InputError
from attunet.models import AttentionUNet
from attunet.models.batch_norm_relu import BatchNormReLU
from attunet.models.unet import DoubleConv
from attunet.ops.norm_relu import choose_backend

BACKENDS = ("reference", "torch", "triton")


def with_norms(network: nn.Module, backend: str) -> nn.Module:
    for module in network.modules():
        if isinstance(module, BatchNormReLU):
            module.backend = backend
    return network


def network_with(backend: str, device: str) -> nn.Module:
    network = AttentionUNet(in_channels=1, num_classes=3, base_width=4, depth=2)
    return with_norms(network, backend).to(device, memory_format=torch.channels_last)


def test_a_network_compiles_without_a_graph_break_and_trains_alike(backend: str, device: str) -> None:
    torch.manual_seed(0)
    networks = [network_with(name, device) for name in (backend, "reference")]
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


@pytest.mark.parametrize("backend", ["triton"], indirect=True)
def test_auto_takes_the_kernels_for_channels_last_alone(backend: str, device: str) -> None:
    x = torch.zeros(2, 4, 3, 3, device=device)
    assert choose_backend(x.to(memory_format=torch.channels_last)) == "triton"
    assert choose_backend(x) == "torch"
    with pytest.raises(InputError, match="backend triton takes channels-last tensors"):
        choose_backend(x, "triton")


def test_activation_checkpointing_changes_nothing(backend: str, device: str) -> None:
    results = []
    for recomputed in (False, True):
        torch.manual_seed(0)
        network = network_with(backend, device)
        network.activation_checkpointing = recomputed
        out = network(torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)).to(device))
        results.append([*torch.autograd.grad(out.square().mean(), list(network.parameters())), *network.buffers()])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_on_the_cpu_a_block_is_bitwise_torchs_own_layers() -> None:
    def layers(channels: int, width: int) -> list[nn.Module]:
        return [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]

    torch.manual_seed(0)
    block = with_norms(DoubleConv(3, 8), "torch")
    plain = nn.Sequential(*layers(3, 8), *layers(8, 8))
    assert list(block.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(block.state_dict())
    x = torch.randn(2, 3, 12, 10).to(memory_format=torch.channels_last)
    results = []
    for network in (block, plain):
        out = network(x)
        gradients = torch.autograd.grad(out.square().mean(), list(network.parameters()))
        results.append([out, *gradients, *network.buffers(), network.eval()(x)])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
