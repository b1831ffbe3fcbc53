"""One suite that every network inherits."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from attunet.config import ModelConfig
from attunet.errors import InputError
from attunet.models import MODELS, SegmentationNetwork, build_model


def make(
    name: str, *, in_channels: int = 1, num_classes: int = 5, base_width: int = 4, depth: int = 4, seed: int = 0
) -> SegmentationNetwork:
    torch.manual_seed(seed)
    return build_model(ModelConfig(name=name, base_width=base_width, depth=depth), in_channels, num_classes)


class NetworkSuite:
    name: str
    num_gates: int

    @pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 48), (80, 16)])
    def test_logits_keep_the_size_of_the_input(self, height: int, width: int) -> None:
        logits = make(self.name)(torch.randn(2, 1, height, width))
        assert logits.shape == (2, 5, height, width)

    @pytest.mark.parametrize(("in_channels", "num_classes"), [(1, 2), (3, 5), (5, 1)])
    def test_any_number_of_channels_and_classes(self, in_channels: int, num_classes: int) -> None:
        network = make(self.name, in_channels=in_channels, num_classes=num_classes)
        assert network(torch.randn(2, in_channels, 16, 32)).shape == (2, num_classes, 16, 32)

    @pytest.mark.parametrize("depth", [1, 3])
    def test_depth_sets_the_multiple_of_the_size(self, depth: int) -> None:
        multiple = 2**depth
        size = (multiple, 3 * multiple)
        assert make(self.name, depth=depth)(torch.randn(2, 1, *size)).shape == (2, 5, *size)

    @pytest.mark.parametrize("shape", [(2, 1, 24, 32), (2, 1, 32, 40)])
    def test_a_size_that_does_not_fit_is_one_line(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(InputError) as error:
            make(self.name)(torch.randn(shape))
        assert "multiples of 16" in str(error.value)
        assert f"{shape[2]} x {shape[3]}" in str(error.value)
        assert "\n" not in str(error.value)

    def test_every_parameter_gets_a_gradient(self) -> None:
        network = make(self.name)
        network(torch.randn(2, 1, 32, 32)).square().mean().backward()
        without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
        assert without == []

    def test_attention_maps_lie_between_0_and_1_deepest_first(self) -> None:
        logits, attention = make(self.name).with_attention(torch.randn(2, 1, 32, 48))
        assert logits.shape == (2, 5, 32, 48)
        assert len(attention) == make(self.name).num_gates == self.num_gates
        assert [tuple(a.shape) for a in attention] == [(2, 1, 4 * n, 6 * n) for n in (1, 2, 4, 8)][: self.num_gates]
        assert all(((alpha > 0) & (alpha < 1)).all() for alpha in attention)

    def test_asking_for_attention_does_not_change_the_logits(self) -> None:
        network, x = make(self.name).eval(), torch.randn(1, 1, 32, 32)
        assert torch.equal(network(x), network.with_attention(x)[0])

    def test_shared_weights_of_one_seed_are_those_of_the_plain_network(self) -> None:
        ours, plain = make(self.name, seed=3).state_dict(), make("unet", seed=3).state_dict()
        assert set(plain) <= set(ours)
        assert all(torch.equal(ours[key], plain[key]) for key in plain)
        assert all(key.startswith("gates.") for key in set(ours) - set(plain))

    def test_memory_layout_does_not_change_the_logits(self) -> None:
        network, x = make(self.name).eval(), torch.randn(2, 1, 32, 32)
        expected: Tensor = network(x)
        got = network.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)

    def test_learns_a_bright_square(self) -> None:
        network = make(self.name, num_classes=2, depth=2)
        x = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        target = torch.zeros(4, 32, 32, dtype=torch.long)
        target[:, 8:20, 8:24] = 1
        x[:, 0] += 2.0 * target
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        for _ in range(40):
            loss = torch.nn.functional.cross_entropy(network(x), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        agreement = (network(x).argmax(1) == target).float().mean()
        assert agreement > 0.97


class TestUNet(NetworkSuite):
    name = "unet"
    num_gates = 0


class TestAttentionUNet(NetworkSuite):
    name = "attention_unet"
    num_gates = 4

    def test_gates_start_half_open(self) -> None:
        _, attention = make(self.name).with_attention(torch.randn(2, 1, 32, 32))
        assert all(0.3 < alpha.median() < 0.7 for alpha in attention)

    def test_a_checkpoint_does_not_know_the_backend(self) -> None:
        network, x = make(self.name).eval(), torch.randn(1, 1, 32, 32)
        other = make(self.name, seed=1).eval()
        for gate in other.gates:
            gate.backend = "reference"
        other.load_state_dict(network.state_dict())
        torch.testing.assert_close(other(x), network(x), rtol=1e-4, atol=1e-5)


def test_an_unknown_name_is_one_line() -> None:
    with pytest.raises(InputError, match=f"must be one of {', '.join(MODELS)}, got 'vnet'"):
        make("vnet")


def test_a_network_that_is_no_unet_needs_one_module_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
from torch import nn
from attunet.models import SegmentationNetwork

class Toy(SegmentationNetwork):
    def __init__(self, *, in_channels, num_classes, base_width, depth):
        super().__init__()
        first = nn.Conv2d(in_channels, base_width, 3, padding=1)
        self.layers = nn.Sequential(first, nn.ReLU(), nn.Conv2d(base_width, num_classes, 1))

    def forward(self, x):
        return self.layers(x)
"""
    (tmp_path / "toy_network.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(MODELS, "toy", "toy_network:Toy")
    model = ModelConfig(base_width=8)
    # The choices of `model.name` are read from MODELS when the configuration is imported
    object.__setattr__(model, "name", "toy")
    network, x = build_model(model, 1, 3), torch.randn(2, 1, 16, 16)
    assert network(x).shape == (2, 3, 16, 16)
    assert network.with_attention(x)[1] == ()
    with pytest.raises(InputError, match="activation_checkpointing: Toy does not support it"):
        network.enable_activation_checkpointing()


def test_every_model_of_the_table_is_a_choice_of_the_configuration_and_can_be_built() -> None:
    for name in MODELS:
        assert isinstance(build_model(ModelConfig(name=name, base_width=4), 1, 2), SegmentationNetwork)


def test_a_network_of_another_base_class_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "unet", "torch.nn:Identity")
    with pytest.raises(TypeError, match=r"torch\.nn:Identity: a network of MODELS must be a subclass"):
        make("unet")
