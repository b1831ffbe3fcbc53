"""Every graph is plain ONNX, for the checker, strict shape inference, the reference implementation and old runtimes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attunet.classes import CHAOS_MR
from attunet.export.artefact.card import MIN_ONNX_RUNTIME
from attunet.volumes.spec import PreprocessSpec

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from attunet.export.build.graph import IR_VERSION, OPSET, tidy  # noqa: E402
from attunet.export.build.precision import to_half, to_int8  # noqa: E402
from attunet.export.build.upsampling import upsample_by_pixel_shuffle  # noqa: E402
from attunet.export.build.whole.graph import whole_graph  # noqa: E402

SPEC = PreprocessSpec(orientation="LPS", slice_axis=2, spacing_mm=1.6, size=(64, 64))
PRECISIONS = ("fp32", "fp16", "int8")
SLICES = np.random.default_rng(0).standard_normal((2, 1, 32, 48), dtype=np.float32)


@pytest.fixture(scope="module")
def converted(graph: bytes) -> dict[str, Any]:
    """The small network with every output, in every precision."""
    models = {precision: onnx.load_from_string(graph) for precision in PRECISIONS}
    models["fp16"] = to_half(models["fp16"])
    upsample_by_pixel_shuffle(models["int8"])
    models["int8"] = to_int8(models["int8"], SLICES)
    for model in models.values():
        tidy(model)
    return models


@pytest.mark.parametrize("precision", PRECISIONS)
def test_checker_and_strict_shape_inference_accept_it(
    converted: dict[str, Any], precision: str, tmp_path: Path
) -> None:
    model = converted[precision]
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    assert model.ir_version == IR_VERSION
    onnx.save(model, tmp_path / "all.onnx")
    onnx.utils.extract_model(tmp_path / "all.onnx", tmp_path / "labels.onnx", ["slices"], ["labels"])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_reference_implementation_computes_the_same(converted: dict[str, Any], precision: str) -> None:
    import onnxruntime
    from onnx.reference import ReferenceEvaluator

    model = converted[precision]
    names = [output.name for output in model.graph.output]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"slices": SLICES})
    results = ReferenceEvaluator(model).run(None, {"slices": SLICES})
    tolerance = {"fp32": 1e-4, "fp16": 0.05, "int8": 0.1}[precision]
    for name, ours, reference in zip(names, expected, results, strict=True):
        assert ours.dtype == reference.dtype, name
        if name == "labels":
            assert (ours == reference).mean() > 0.97
        else:
            assert np.sqrt(np.mean((ours - reference) ** 2)) < tolerance * np.sqrt(np.mean(ours**2)), name


def test_a_graph_out_of_order_is_sorted_and_a_sorted_one_is_left_alone(graph: bytes) -> None:
    model = onnx.load_from_string(graph)
    names = [node.name for node in model.graph.node]
    tidy(model)
    assert [node.name for node in model.graph.node] == names
    nodes = list(reversed(model.graph.node))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(model)
    tidy(model)
    onnx.checker.check_model(model, full_check=True)


def test_a_whole_graph_has_only_standard_operators_of_one_opset(converted: dict[str, Any]) -> None:
    network = _logits_alone(converted["fp32"])
    model = whole_graph(network, SPEC, CHAOS_MR)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    (loop,) = [node for node in model.graph.node if node.op_type == "Loop"]
    nodes = [*model.graph.node, *onnx.helper.get_attribute_value(loop.attribute[0]).node]
    assert {node.domain for node in nodes} == {""}
    page = (Path(__file__).parents[3] / "docs/artefact.md").read_text(encoding="utf-8")
    listed = page[page.index("those of the network, and ") :].split(". ")[0]
    own = {node.op_type for node in nodes} - {node.op_type for node in network.graph.node}
    assert own <= set(listed.replace("\n", " ").replace(",", " ").split())


OLD_RUNTIME = """
import sys, numpy, onnxruntime
for path in sys.argv[1:]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    if session.get_inputs()[0].name == "volume":
        volume = numpy.random.default_rng(0).normal(100, 20, (1, 5, 80, 70)).astype("f4")
        (labels,) = session.run(None, {"volume": volume, "spacing": numpy.array([5, 2, 2], "f4")})
        assert labels.shape == (5, 80, 70)
    else:
        labels, *_ = session.run(["labels", "logits"], {"slices": numpy.zeros((2, 1, 64, 64), "f4")})
        assert labels.shape == (2, 64, 64)
print(onnxruntime.__version__)
"""


@pytest.mark.slow
def test_the_oldest_onnx_runtime_that_the_card_names_runs_it(converted: dict[str, Any], tmp_path: Path) -> None:
    paths = []
    for precision, model in converted.items():
        paths += [tmp_path / f"{precision}.onnx", tmp_path / f"whole-{precision}.onnx"]
        onnx.save(model, paths[-2])
        onnx.save(whole_graph(_logits_alone(model), SPEC, CHAOS_MR), paths[-1])
    old = tmp_path / "old"  # in front of the packages of this environment
    install = ["install", "--quiet", "--retries=1", "--no-deps", "--no-compile", "--target", old]
    packages = (f"onnxruntime=={MIN_ONNX_RUNTIME}.0", "numpy<2")
    if subprocess.run([sys.executable, "-m", "pip", *install, *packages], check=False).returncode:
        pytest.skip(f"onnxruntime {MIN_ONNX_RUNTIME} cannot be installed for this Python")
    environment = os.environ | {"PYTHONPATH": str(old)}
    command = [sys.executable, "-c", OLD_RUNTIME, *paths]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(MIN_ONNX_RUNTIME)


def _logits_alone(model: Any) -> Any:
    return onnx.utils.Extractor(model).extract_model(["slices"], ["logits"])
