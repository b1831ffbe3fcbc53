"""The tests' own short cut of an export: networks that are built alike share a trace, and nothing else."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import onnxruntime  # noqa: E402
import traced_once  # noqa: E402

from attunet.config import ModelConfig  # noqa: E402
from attunet.export.build.graph import export_graph  # noqa: E402
from attunet.models import build_model  # noqa: E402


def small_network(seed: int) -> "torch.nn.Module":
    """With statistics and weights of batch norm that a fold would show."""
    torch.manual_seed(seed)
    network = build_model(ModelConfig(base_width=4, depth=1), 1, 3)
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 1.5) if name.endswith("running_var") else tensor.data.normal_()
    return network.eval()


def test_each_network_has_its_own_weights_in_the_graph_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process, and in another, which finds the graph in the folder."""
    traces: list[int] = []
    real = traced_once.trace
    monkeypatch.setattr(traced_once, "trace", lambda *given, **options: traces.append(1) or real(*given, **options))
    slices = np.random.default_rng(0).normal(size=(2, 1, 32, 48)).astype(np.float32)
    for seeds in ((0, 1), (2,)):
        with traced_once.traced_once(tmp_path):
            for seed in seeds:
                network = small_network(seed)
                graph = export_graph(network, 1, ("logits",)).SerializeToString()
                (logits,) = onnxruntime.InferenceSession(graph).run(None, {"slices": slices})
                with torch.no_grad():
                    expected = network(torch.from_numpy(slices)).numpy()
                np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert len(traces) == 1


def wider(network: "torch.nn.Module") -> None:
    network.head = torch.nn.Conv2d(4, 4, 1)


def other_epsilon(network: "torch.nn.Module") -> None:
    next(m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)).eps = 0.1


def other_forward(network: "torch.nn.Module") -> None:
    network.forward = lambda slices: network.head(slices)


@pytest.mark.parametrize("change", [wider, other_epsilon, other_forward])
def test_networks_that_are_built_otherwise_share_nothing(change: Callable[["torch.nn.Module"], None]) -> None:
    first, alike, other = small_network(0), small_network(1), small_network(0)
    change(other)
    assert traced_once._structure(first) == traced_once._structure(alike)
    assert traced_once._structure(first) != traced_once._structure(other)
