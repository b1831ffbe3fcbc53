"""A graph that takes a whole volume gives the labels of the ordinary way, on volumes of every kind."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attunet.classes import CHAOS_MR, Classes
from attunet.errors import RunError
from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.artefact_file import write_artefact
from attunet.export.runtime.segmenter import Segmenter
from attunet.io.readers import read_volume
from attunet.metrics.aggregate import mean
from attunet.metrics.overlap import confusion, dice_from_confusion
from attunet.volumes.slices import VolumeSlices, assemble, restore_scores
from attunet.volumes.spec import UNTOUCHED, Preprocessing, PreprocessSpec
from attunet.volumes.volume import Volume

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from attunet.export.build.graph import export_graph, tidy  # noqa: E402
from attunet.export.build.precision import to_half, to_int8  # noqa: E402
from attunet.export.build.upsampling import upsample_by_pixel_shuffle  # noqa: E402
from attunet.export.build.whole_graph import whole_graph  # noqa: E402

TIE = 1e-4  # difference of two logits that rounding may exchange


@dataclass(frozen=True)
class Scan:
    """A generated volume `(channels, X, Y, Z)` and the pre-processing of a model for it."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.5, 1.5, 6.0)
    axes: str = "LPS"
    tilt: float = 0.0  # radians
    channels: int = 1
    dtype: type = np.int16
    spec: dict[str, Any] = field(default_factory=dict)


PICTURE = {"normalization": "none", "num_channels": 3, "spacing_mm": None}
SCANS = {
    "axial": Scan((60, 52, 11)),
    "one slice": Scan((60, 52, 1)),
    "two slices": Scan((47, 33, 2)),
    "nine slices, one more than a batch": Scan((40, 40, 9)),
    "other axes": Scan((11, 60, 52), axes="SAR"),
    "flipped": Scan((60, 52, 7), axes="RAI"),
    "oblique": Scan((60, 52, 7), tilt=0.3),
    "unequal spacing": Scan((60, 52, 5), spacing=(0.7, 2.3, 3.1)),
    "coarse": Scan((20, 24, 5), spacing=(4.0, 4.0, 9.0)),
    "fine": Scan((200, 180, 3), spacing=(0.4, 0.4, 3.0)),
    "larger than the window": Scan((90, 110, 4), spacing=(1.6, 1.6, 5.0)),
    "float": Scan((50, 50, 6), dtype=np.float32),
    "constant": Scan((50, 50, 3), dtype=np.uint8),
    "sagittal slices": Scan((7, 60, 52), spec={"slice_axis": 0}),
    "native resolution": Scan((60, 52, 5), spec={"spacing_mm": None}),
    "CT window": Scan((60, 52, 5), spec={"normalization": "ct", "window": (-160.0, 240.0)}),
    "other percentiles": Scan((60, 52, 5), spec={"clip_percentiles": (0.0, 98.7)}),
    "context": Scan((60, 52, 9), spec={"context_slices": 3}),
    "picture": Scan(
        (60, 52, 1),
        axes="",
        channels=3,
        dtype=np.uint8,
        spec={"normalization": "none", "num_channels": 3, "spacing_mm": None},
    ),
    "two channels": Scan((60, 52, 5), channels=3, spec={"num_channels": 3}),
}


def _volume(scan: Scan) -> Volume:
    random = np.random.default_rng(sum(scan.shape))
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in scan.shape), indexing="ij"))
    body = (grid**2).sum(0) < 0.8
    data = np.stack(
        [100 + 300 * body * (1 + np.sin(5 * grid[0] + c) * np.cos(4 * grid[1])) for c in range(scan.channels)]
    )
    data = data + random.normal(0, 10, data.shape)
    if scan.dtype is np.uint8:
        data = data / 5
    if scan.shape == SCANS["constant"].shape and scan.dtype is np.uint8 and scan.axes:
        data = np.full_like(data, 7)
    return Volume(data.astype(scan.dtype), _affine(scan), unit="mm" if scan.axes else "pixel")


def _affine(scan: Scan) -> np.ndarray:
    directions = {"L": (-1, 0, 0), "R": (1, 0, 0), "P": (0, -1, 0), "A": (0, 1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    affine = np.eye(4)
    affine[:3, :3] = np.stack([directions[c] for c in scan.axes or "RAS"], axis=1) * np.array(scan.spacing)
    c, s = np.cos(scan.tilt), np.sin(scan.tilt)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ affine[:3, :3]
    return affine


def _spec(scan: Scan) -> PreprocessSpec:
    values = {
        "orientation": "LPS" if scan.axes else None,
        "slice_axis": 2,
        "spacing_mm": 1.6,
        "size": (64, 64),
    } | scan.spec
    return PreprocessSpec(**values)


@pytest.fixture(scope="module")
def graphs(network: Any) -> Callable[[int], Any]:
    """The traced network by its number of input channels; tracing takes seconds."""
    from attunet.config import ModelConfig
    from attunet.models import build_model

    traced: dict[int, bytes] = {1: export_graph(network, 1, ("logits",)).SerializeToString()}

    def graph(in_channels: int) -> Any:
        if in_channels not in traced:
            torch.manual_seed(1)
            other = build_model(ModelConfig(name="unet", base_width=4, depth=2), in_channels, 5).eval()
            with torch.no_grad():
                # Every class is predicted somewhere
                other.head.bias -= other(torch.randn(4, in_channels, 64, 64)).mean(dim=(0, 2, 3))
            traced[in_channels] = export_graph(other, in_channels, ("logits",)).SerializeToString()
        return onnx.load_from_string(traced[in_channels])

    return graph


def _pair(
    folder: Path,
    graph: Any,
    spec: PreprocessSpec,
    precision: str = "fp32",
    classes: Classes = CHAOS_MR,
    *,
    full_batches: bool = False,
) -> tuple[Path, Path]:
    """The same network as an ordinary and as a whole artefact."""
    about = {
        "name": "small",
        "precision": precision,
        "preprocessing": Preprocessing(spec),
        "classes": classes,
        "num_parameters": 7,
    }
    paths = folder / "slices.onnx", folder / "whole.onnx"
    paths[0].write_bytes(write_artefact(graph.SerializeToString(), Artefact(**about, outputs=("logits",))))
    whole = whole_graph(graph, spec, classes, full_batches=full_batches)
    onnx.checker.check_model(whole, full_check=True)
    paths[1].write_bytes(write_artefact(whole.SerializeToString(), Artefact(**about, outputs=("labels",), whole=True)))
    return paths


def _labels(path: Path, volume: Volume, provider: str = "cpu") -> np.ndarray:
    segmenter = Segmenter(path, provider=provider, num_threads=1)
    return segmenter.predict_prepared(segmenter.prepare(volume), postprocessing=UNTOUCHED)


def _native_logits(path: Path, volume: Volume) -> np.ndarray:
    """Logits (K, X, Y, Z) of the ordinary way."""
    segmenter = Segmenter(path, num_threads=1)
    prepared = VolumeSlices(volume, segmenter.spec)
    logits = np.concatenate([segmenter.logits(prepared.batch(z, z + 1)) for z in range(len(prepared))])
    return assemble(restore_scores(logits, prepared.grid), prepared.grid)


def _check_alike(volume: Volume, whole: np.ndarray, ordinary: np.ndarray, logits: np.ndarray) -> None:
    assert len(np.unique(ordinary)) > 1, "a map of one class would prove nothing"
    dice = mean(dice_from_confusion(confusion(whole, ordinary, len(logits))))
    assert dice >= 0.9995
    different = np.nonzero(whole != ordinary)
    first, second = (logits[(labels[different], *different)] for labels in (whole, ordinary))
    assert np.abs(first - second).max(initial=0) < TIE


@pytest.mark.parametrize("name", SCANS)
def test_labels_are_those_of_the_ordinary_way(tmp_path: Path, graphs: Callable[[int], Any], name: str) -> None:
    scan = SCANS[name]
    volume, spec = _volume(scan), _spec(scan)
    slices, whole = _pair(tmp_path, graphs(spec.in_channels), spec)
    _check_alike(volume, _labels(whole, volume), _labels(slices, volume), _native_logits(slices, volume))
    # Nodes weigh something beside so small a network
    assert whole.stat().st_size < 1.1 * slices.stat().st_size + 60_000


@pytest.mark.parametrize(
    "name", ["axial", "one slice", "nine slices, one more than a batch", "context", "two channels"]
)
def test_full_batches_give_the_same_labels(tmp_path: Path, graphs: Callable[[int], Any], name: str) -> None:
    """Every run of the network gets eight slices, whatever the volume has."""
    scan = SCANS[name]
    volume, spec = _volume(scan), _spec(scan)
    slices, whole = _pair(tmp_path, graphs(spec.in_channels), spec, full_batches=True)
    _check_alike(volume, _labels(whole, volume), _labels(slices, volume), _native_logits(slices, volume))
    model = onnx.load(whole)
    (loop,) = [node for node in model.graph.node if node.op_type == "Loop"]
    body = onnx.helper.get_attribute_value(loop.attribute[0])
    body.output.append(onnx.helper.make_tensor_value_info("network_shape", onnx.TensorProto.INT64, [4]))
    body.node.append(onnx.helper.make_node("Shape", ["slices"], ["network_shape"]))
    loop.output.append("shapes")
    model.graph.output.append(onnx.helper.make_tensor_value_info("shapes", onnx.TensorProto.INT64, [None, 4]))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    prepared = Segmenter(whole, num_threads=1).prepare(volume)
    (shapes,) = session.run(["shapes"], {"volume": prepared.data, "spacing": prepared.spacing})
    assert set(shapes[:, 0]) == {8}


def test_real_scans(tmp_path: Path, graphs: Callable[[int], Any], real_cases: Path) -> None:
    spec = PreprocessSpec(orientation="LPS", slice_axis=2, spacing_mm=2.1333, size=(192, 192))
    slices, whole = _pair(tmp_path, graphs(1), spec)
    for image in sorted((real_cases / "unlabelled").glob("*.nii*"))[:2]:
        volume = read_volume(image)
        _check_alike(volume, _labels(whole, volume), _labels(slices, volume), _native_logits(slices, volume))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions(tmp_path: Path, graphs: Callable[[int], Any], precision: str) -> None:
    volume, spec, graph = _volume(SCANS["axial"]), _spec(SCANS["axial"]), graphs(1)
    if precision == "fp16":
        graph = to_half(graph)
    else:
        upsample_by_pixel_shuffle(graph)
        graph = to_int8(graph, [VolumeSlices(volume, spec).batch(0, 4)])
    tidy(graph)
    slices, whole = _pair(tmp_path, graph, spec, precision)
    ordinary = _labels(slices, volume)
    agreement = dice_from_confusion(confusion(_labels(whole, volume), ordinary, 5))
    # int8 rounds its input, so the last bit of an intensity can become a whole step, and this untrained network has
    # ties everywhere
    assert mean(agreement) >= {"fp16": 0.9995, "int8": 0.99}[precision]


def test_openvino_gives_the_same_labels(tmp_path: Path, graphs: Callable[[int], Any]) -> None:
    pytest.importorskip("openvino")
    volume, spec = _volume(SCANS["axial"]), _spec(SCANS["axial"])
    slices, whole = _pair(tmp_path, graphs(1), spec)
    labels = _labels(whole, volume, "openvino")
    assert mean(dice_from_confusion(confusion(labels, _labels(slices, volume), 5))) >= 0.9995


def test_onnx_reference_gives_the_same_labels(tmp_path: Path, graphs: Callable[[int], Any]) -> None:
    from onnx.reference import ReferenceEvaluator

    scan = Scan((30, 28, 3))
    volume, spec = _volume(scan), PreprocessSpec(orientation="LPS", slice_axis=2, spacing_mm=3.0, size=(16, 16))
    _, whole = _pair(tmp_path, graphs(1), spec)
    prepared = Segmenter(whole, num_threads=1).prepare(volume)
    (labels,) = ReferenceEvaluator(onnx.load(whole)).run(None, {"volume": prepared.data, "spacing": prepared.spacing})
    np.testing.assert_array_equal(
        labels, Segmenter(whole, num_threads=1).segment_oriented(prepared.data, prepared.spacing)
    )


def test_class_values_outside_uint8_and_in_any_order(tmp_path: Path, graphs: Callable[[int], Any]) -> None:
    classes = Classes(CHAOS_MR.names, (0, 500, -3, 252, 7))
    volume, spec = _volume(SCANS["axial"]), _spec(SCANS["axial"])
    slices, whole = _pair(tmp_path, graphs(1), spec, classes=classes)
    segmenter = Segmenter(whole, num_threads=1)
    prepared = segmenter.prepare(volume)
    values = segmenter.segment_oriented(prepared.data, prepared.spacing)
    assert set(np.unique(values)) <= set(classes.values)
    assert values.dtype == np.int32
    np.testing.assert_array_equal(_labels(whole, volume), _labels(slices, volume))


def test_only_standard_operators_of_one_opset(graphs: Callable[[int], Any]) -> None:
    model = whole_graph(graphs(1), _spec(SCANS["axial"]), CHAOS_MR)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]
    (loop,) = [node for node in model.graph.node if node.op_type == "Loop"]
    nodes = [*model.graph.node, *onnx.helper.get_attribute_value(loop.attribute[0]).node]
    assert {node.domain for node in nodes} == {""}
    page = (Path(__file__).parents[3] / "docs/artefact.md").read_text(encoding="utf-8")
    listed = page[page.index("those of the network, and ") :].split(". ")[0]
    own = {node.op_type for node in nodes} - {node.op_type for node in graphs(1).graph.node}
    assert own <= set(listed.replace("\n", " ").replace(",", " ").split())


@pytest.mark.gpu
def test_cuda_gives_the_same_labels(tmp_path: Path, graphs: Callable[[int], Any]) -> None:
    volume, spec = _volume(SCANS["axial"]), _spec(SCANS["axial"])
    slices, whole = _pair(tmp_path, graphs(1), spec)
    try:
        labels = _labels(whole, volume, "cuda")
    except RunError as error:
        pytest.skip(str(error))
    assert mean(dice_from_confusion(confusion(labels, _labels(slices, volume), 5))) >= 0.9995
