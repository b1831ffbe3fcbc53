"""Residual encoder blocks: parameters, batch norm and checkpointing of the plain network, the same graph."""

from collections import Counter

import numpy as np
import pytest
import torch

from attunet.config import ModelConfig
from attunet.errors import InputError
from attunet.models import SegmentationNetwork, build_model
from attunet.models.unet import ResidualConv

NETWORKS = ("unet", "attention_unet")


def make(name: str, blocks: str) -> SegmentationNetwork:
    torch.manual_seed(0)
    return build_model(ModelConfig(name=name, base_width=4, depth=2, blocks=blocks), 1, 5)


@pytest.mark.parametrize("name", NETWORKS)
def test_both_kinds_have_the_same_parameters_and_other_logits(name: str) -> None:
    plain, residual = make(name, "plain"), make(name, "residual")
    for one, other in zip(plain.parameters(), residual.parameters(), strict=True):
        assert torch.equal(one, other)
    x = torch.randn(2, 1, 32, 48)
    assert residual(x).shape == (2, 5, 32, 48)
    assert not torch.allclose(residual(x), plain(x), atol=0.01)


def test_a_block_that_computes_nothing_passes_its_input_on() -> None:
    block = ResidualConv(3, 5)
    torch.nn.init.zeros_(block.second_norm.weight)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(block(x), torch.cat([x.relu(), torch.zeros(2, 2, 8, 8)], dim=1))


@pytest.mark.parametrize("name", NETWORKS)
def test_recomputed_activations_give_the_same_gradients_and_statistics(name: str) -> None:
    kept, again = make(name, "residual"), make(name, "residual")
    again.enable_activation_checkpointing()
    x = torch.randn(2, 1, 32, 32)
    for network in (kept, again):
        network(x).square().mean().backward()
    for one, other in zip(kept.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad)
    torch.testing.assert_close(again.state_dict(), kept.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_has_no_batch_norm_and_the_logits_of_the_network(name: str) -> None:
    pytest.importorskip("onnx")
    import onnxruntime

    from attunet.export.build.graph import export_graph

    network = make(name, "residual")
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    slices = torch.randn(3, 1, 32, 48)
    with torch.no_grad():
        network(slices)
        expected = network.eval()(slices).numpy()
    graph = export_graph(network, 1, ("logits",))
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert not any("Normalization" in kind for kind in kinds)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(["logits"], {"slices": slices.numpy()})[0], expected, atol=1e-4)


def test_a_network_without_such_blocks_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attunet.models.UNet.kinds_of_blocks", ("plain",))
    with pytest.raises(InputError, match=r"model\.blocks: UNet has no residual blocks; set it to plain"):
        make("unet", "residual")
