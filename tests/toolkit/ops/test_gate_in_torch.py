"""The gate in PyTorch: torch.library, compile, autocast, checkpointing, DDP, export; and the choice of a backend."""

import io
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from attunet.errors import InputError
from attunet.models import AttentionUNet
from attunet.models.batch_norm_relu import BatchNormReLU
from attunet.ops import attention_gate
from attunet.ops.attention_gate import choose_backend
from attunet.ops.gate.reference import attention_gate_reference

BACKENDS = ("reference", "cpu", "triton")


def gate_inputs(
    device: str = "cpu", dtype: torch.dtype = torch.float32, layout: torch.memory_format = torch.channels_last
) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = [(2, 8, 6, 5), (2, 4, 6, 5), (3, 8), (3, 4), (3,), (3,), (1,)]
    inputs = [torch.randn(shape, generator=random).to(device, dtype) for shape in shapes]
    return [t.contiguous(memory_format=layout) if t.dim() == 4 else t for t in inputs]


def leaves(inputs: list[Tensor]) -> list[Tensor]:
    return [t.detach().requires_grad_() for t in inputs]


def small_network(backend: str, device: str) -> AttentionUNet:
    torch.manual_seed(0)
    network = AttentionUNet(in_channels=1, num_classes=3, base_width=4, depth=2)
    for gate in network.gates:
        gate.backend = backend
    for module in network.modules():
        if isinstance(module, BatchNormReLU):  # its own kernels are tested with those of the gate in test_norm_in_torch
            module.backend = "torch"
    return network.to(device, memory_format=torch.channels_last)


def gradients(network: torch.nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters())))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "channels_last"])
@pytest.mark.parametrize("backend", ["cpu", "triton"], indirect=True)
def test_opcheck(backend: str, device: str, layout: torch.memory_format) -> None:
    operation = getattr(torch.ops.attunet, f"attention_gate_{backend}").default
    backward = getattr(torch.ops.attunet, f"attention_gate_{backend}_backward").default
    inputs = gate_inputs(device, layout=layout)
    torch.library.opcheck(operation, leaves(inputs))
    out, alpha = operation(*inputs)
    torch.library.opcheck(backward, (torch.ones_like(out), torch.ones_like(alpha), *inputs))
    torch.library.opcheck(backward, (torch.ones_like(out), None, *inputs))


def test_compiles_without_a_graph_break(backend: str, device: str) -> None:
    network = small_network(backend, device)
    x = torch.randn(2, 1, 16, 24, device=device)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-4)
    got, expected = (gradients(network, run(x).square().sum()) for run in (compiled, network))
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


def test_compiles_under_autocast(backend: str, device: str) -> None:
    dtype = torch.float16 if backend == "triton" else torch.bfloat16
    network = small_network(backend, device).eval()
    x = torch.randn(2, 1, 16, 16, device=device)
    with torch.autocast(device, dtype):
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")(x)
        torch.testing.assert_close(compiled, network(x), rtol=0.05, atol=0.05)


def test_autocast_casts_as_a_convolution_does(backend: str, device: str, dtype: torch.dtype) -> None:
    inputs = leaves(gate_inputs(device))
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        out, alpha = attention_gate(*inputs, backend=backend, return_alpha=True)
    assert out.dtype == alpha.dtype == dtype
    exact, _ = attention_gate(*inputs, backend="reference", return_alpha=True)
    torch.testing.assert_close(out.float(), exact, rtol=0.03, atol=0.03)
    got = torch.autograd.grad(out.float().sum(), inputs)
    assert all(t.dtype == torch.float32 for t in got)
    wanted = torch.autograd.grad(exact.sum(), inputs)
    error = torch.cat([(a - b).flatten() for a, b in zip(got, wanted, strict=True)])
    assert error.norm() < 0.05 * torch.cat([t.flatten() for t in wanted]).norm()


def test_activation_checkpointing_changes_nothing(backend: str, device: str) -> None:
    inputs = leaves(gate_inputs(device))

    def gate(*tensors: Tensor) -> Tensor:
        return attention_gate(*tensors, backend=backend)

    recomputed = torch.utils.checkpoint.checkpoint(gate, *inputs, use_reentrant=False)
    kept, again = (torch.autograd.grad(out.square().sum(), inputs) for out in (gate(*inputs), recomputed))
    for a, b in zip(kept, again, strict=True):
        assert torch.equal(a, b)


def test_distributed_data_parallel(backend: str, device: str, tmp_path: Path) -> None:
    network, x = small_network(backend, device), torch.randn(2, 1, 16, 16, device=device)
    expected = gradients(network, network(x).square().sum())
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        options = {"gradient_as_bucket_view": True, "broadcast_buffers": False}
        torch.nn.parallel.DistributedDataParallel(network, **options)(x).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close([p.grad for p in network.parameters()], expected, rtol=1e-4, atol=1e-4)


def test_every_backend_trains_the_same_network(backend: str, device: str) -> None:
    network, reference = small_network(backend, device), small_network("reference", device)
    x = torch.randn(2, 1, 16, 16, device=device)
    reference.load_state_dict(network.state_dict())
    got, expected = gradients(network, network(x).square().mean()), gradients(reference, reference(x).square().mean())
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_export_writes_standard_operators() -> None:
    network = small_network("auto", "cpu").eval()
    program = torch.onnx.export(network, (torch.randn(2, 1, 16, 16),), dynamo=True, verbose=False, external_data=False)
    assert program is not None
    buffer = io.BytesIO()
    program.save(buffer)
    nodes = onnx.load_from_string(buffer.getvalue()).graph.node
    assert {node.domain for node in nodes} <= {"", "ai.onnx"}
    allowed = {"Conv", "ConvTranspose", "Relu", "MaxPool", "Sigmoid", "Mul", "Add", "Concat"}
    assert {node.op_type for node in nodes} <= allowed
    assert sum(node.op_type == "Sigmoid" for node in nodes) == 2


def test_onnx_export_takes_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    assert choose_backend(torch.zeros(1, 4, 2, 2)) == "reference"
    with pytest.raises(InputError, match="backend cpu is not for export"):
        choose_backend(torch.zeros(1, 4, 2, 2), "cpu")


def test_auto_keeps_the_fused_backend_in_a_compiled_network(backend: str, device: str) -> None:
    """`torch.compiler.is_exporting()` is true there in torch 2.11, so the choice must not ask it."""
    if backend == "reference":
        pytest.skip("nothing is fused in the reference")
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, example: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    torch.compile(small_network("auto", device), fullgraph=True, backend=keep)(torch.randn(2, 1, 16, 16, device=device))
    calls = [str(node.target) for graph in graphs for node in graph.graph.nodes if node.op == "call_function"]
    assert sum(f"attention_gate_{backend}" in call for call in calls) == 2


def test_torch_export_keeps_the_fused_operator() -> None:
    program = torch.export.export(small_network("auto", "cpu").eval(), (torch.randn(2, 1, 16, 16),), strict=False)
    assert any("attention_gate" in str(node.target) for node in program.graph.nodes)


def test_auto_takes_the_blocked_path_on_the_cpu() -> None:
    x = torch.randn(1, 4, 2, 2)
    assert choose_backend(x, "auto") in ("cpu", "triton")  # triton where its interpreter is switched on
    assert choose_backend(x.double(), "auto") == "cpu"
    assert choose_backend(x, "reference") == "reference"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "cuda"}, "backend must be one of auto, reference, cpu, triton, got 'cuda'"),
        ({"x": torch.zeros(2, 8, 6, 4)}, "x and g must be"),
        ({"x": torch.zeros(8, 6, 5)}, "x and g must be"),
        ({"x": torch.zeros(2, 8, 6, 5, dtype=torch.int32)}, r"x must be torch.float16, .*, got torch.int32"),
        ({"g": torch.zeros(2, 4, 6, 5).to(torch.float8_e4m3fn)}, r"g must be .*, got torch.float8_e4m3fn"),
        ({"x": torch.zeros(2, 0, 6, 5), "weight_x": torch.zeros(3, 0)}, r"only N may be 0, got x \(2, 0, 6, 5\)"),
        ({"x": torch.zeros(2, 8, 0, 5), "g": torch.zeros(2, 4, 0, 5)}, r"only N may be 0, got x \(2, 8, 0, 5\)"),
        ({"bias": torch.zeros(0)}, r"only N may be 0, .* bias \(0,\)"),
        (
            {"g": torch.zeros(2, 4, 6, 5).double()},
            "one dtype on one device, got torch.float32 on cpu and torch.float64",
        ),
        ({"weight_x": torch.zeros(3, 7)}, r"weight_x must be of shape \(3, 8\), got \(3, 7\)"),
        ({"weight_g": torch.zeros(3, 8)}, r"weight_g must be of shape \(3, 4\), got \(3, 8\)"),
        ({"psi_bias": torch.zeros(())}, r"psi_bias must be of shape \(1,\), got \(\)"),
        ({"bias": torch.zeros(3, dtype=torch.float16)}, "bias must be torch.float32 or float32, got torch.float16"),
        ({"weight_x": torch.zeros(3, 8, device="meta")}, "weight_x must be on cpu, got meta"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_wrong_input_is_one_line(change: dict, message: str) -> None:
    names = ["x", "g", "weight_x", "weight_g", "bias", "psi_weight", "psi_bias"]
    arguments = dict(zip(names, gate_inputs(), strict=True)) | change
    with pytest.raises(InputError, match=message) as error:
        attention_gate(**arguments)
    assert "\n" not in str(error.value)


def test_autocast_does_not_make_numbers_of_integers() -> None:
    x, *rest = gate_inputs()
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(InputError, match=r"x must be torch\.float16, .* got torch\.int64"),
    ):
        attention_gate(x.long(), *rest)


@pytest.mark.parametrize("transform", ["grad", "vmap", "jvp", "tangent"])
def test_transforms_of_functions_go_through_the_reference(transform: str) -> None:
    x, *rest = gate_inputs()

    def result(gate: Callable[[Tensor], Tensor]) -> Tensor:
        if transform == "grad":
            return torch.func.grad(lambda x: gate(x).square().sum())(x)
        if transform == "vmap":
            return torch.func.vmap(gate)(torch.stack((x, 2 * x)))
        if transform == "jvp":
            return torch.func.jvp(gate, (x,), (torch.ones_like(x),))[1]
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(gate(forward_ad.make_dual(x, torch.ones_like(x)))).tangent

    expected = result(lambda x: attention_gate_reference(x, *rest)[0])
    assert torch.equal(result(lambda x: attention_gate(x, *rest)), expected)
    rule = r"backend cpu knows neither torch\.func's transforms nor forward-mode derivatives"
    with pytest.raises(InputError, match=rule):
        result(lambda x: attention_gate(x, *rest, backend="cpu"))


@pytest.mark.parametrize("name", ["cpu", "triton"])
def test_a_backend_asked_for_never_falls_back(name: str) -> None:
    inputs = [t.to("meta") for t in gate_inputs()]
    with pytest.raises(InputError, match=f"backend {name} "):
        attention_gate(*inputs, backend=name)


def test_triton_refuses_double_precision() -> None:
    with pytest.raises(InputError, match=r"backend triton takes float32, bfloat16 or float16, got torch\.float64"):
        attention_gate(*gate_inputs(dtype=torch.float64), backend="triton")
