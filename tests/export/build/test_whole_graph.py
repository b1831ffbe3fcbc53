"""A graph that takes a whole volume gives the labels of the ordinary way, on volumes of every kind."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attunet.classes import CHAOS_MR, Classes
from attunet.errors import RunError
from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.artefact_file import write_artefact
from attunet.export.runtime.array_volume import volume_of_array
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
from attunet.export.build.whole.graph import whole_graph  # noqa: E402

Graphs = Callable[[int], Any]
Pair = Callable[..., tuple[Volume, Path, Path]]
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


PICTURE: dict[str, Any] = {"normalization": "none", "num_channels": 3, "spacing_mm": None}
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
    "picture": Scan((60, 52, 1), axes="", channels=3, dtype=np.uint8, spec=PICTURE),
    "two channels": Scan((60, 52, 5), channels=3, spec={"num_channels": 3}),
}


def _volume(scan: Scan) -> Volume:
    random = np.random.default_rng(sum(scan.shape))
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in scan.shape), indexing="ij"))
    body = (grid**2).sum(0) < 0.8
    waves = [1 + np.sin(5 * grid[0] + c) * np.cos(4 * grid[1]) for c in range(scan.channels)]
    data = 100 + 300 * body * np.stack(waves)
    data = data + random.normal(0, 10, data.shape)
    if scan.dtype is np.uint8:
        data = data / 5
    if scan is SCANS["constant"]:
        data = np.full_like(data, 7)
    affine = volume_of_array(data, scan.spacing, scan.axes or "RAS").affine
    c, s = np.cos(scan.tilt), np.sin(scan.tilt)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ affine[:3, :3]
    return Volume(data.astype(scan.dtype), affine, unit="mm" if scan.axes else "pixel")


def _spec(scan: Scan) -> PreprocessSpec:
    usual = {"orientation": "LPS" if scan.axes else None, "slice_axis": 2, "spacing_mm": 1.6, "size": (64, 64)}
    return PreprocessSpec(**usual | scan.spec)


@pytest.fixture(scope="module")
def graphs(logits_graph: bytes) -> Graphs:
    """The traced network by its number of input channels; tracing takes seconds."""
    from attunet.config import ModelConfig
    from attunet.models import build_model

    traced = {1: logits_graph}

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


@pytest.fixture
def pair(tmp_path: Path, graphs: Graphs) -> Pair:
    """`pair(scan)` is the volume, and the same network as an ordinary and as a whole artefact for it."""

    def make(scan=SCANS["axial"], precision="fp32", classes=CHAOS_MR, graph=None, full_batches=False):
        spec = _spec(scan)
        graph = graph or graphs(spec.in_channels)
        slices = Artefact("small", precision, Preprocessing(spec), classes, num_parameters=7, outputs=("logits",))
        paths = tmp_path / "slices.onnx", tmp_path / "whole.onnx"
        paths[0].write_bytes(write_artefact(graph.SerializeToString(), slices))
        whole = whole_graph(graph, spec, classes, full_batches=full_batches)
        onnx.checker.check_model(whole, full_check=True)
        about = replace(slices, outputs=("labels",), whole=True)
        paths[1].write_bytes(write_artefact(whole.SerializeToString(), about))
        return _volume(scan), *paths

    return make


def _labels(path: Path, volume: Volume, provider: str = "cpu") -> np.ndarray:
    segmenter = Segmenter(path, provider=provider, num_threads=1)
    return segmenter.predict_prepared(segmenter.prepare(volume), postprocessing=UNTOUCHED)


def _native_logits(path: Path, volume: Volume) -> np.ndarray:
    """Logits (K, X, Y, Z) of the ordinary way."""
    segmenter = Segmenter(path, num_threads=1)
    prepared = VolumeSlices(volume, segmenter.spec)
    logits = np.concatenate([segmenter.logits(prepared.batch(z, z + 1)) for z in range(len(prepared))])
    return assemble(restore_scores(logits, prepared.grid), prepared.grid)


def _check_alike(volume: Volume, slices: Path, whole: Path) -> None:
    labels, ordinary, logits = _labels(whole, volume), _labels(slices, volume), _native_logits(slices, volume)
    assert len(np.unique(ordinary)) > 1, "a map of one class would prove nothing"
    assert _agreement(labels, ordinary) >= 0.9995
    different = np.nonzero(labels != ordinary)
    first, second = (logits[(one[different], *different)] for one in (labels, ordinary))
    assert np.abs(first - second).max(initial=0) < TIE


def _agreement(labels: np.ndarray, ordinary: np.ndarray) -> float:
    return mean(dice_from_confusion(confusion(labels, ordinary, 5)))


@pytest.mark.parametrize("name", SCANS)
def test_labels_are_those_of_the_ordinary_way(pair: Pair, name: str) -> None:
    volume, slices, whole = pair(SCANS[name])
    _check_alike(volume, slices, whole)
    # Nodes weigh something beside so small a network
    assert whole.stat().st_size < 1.1 * slices.stat().st_size + 60_000


@pytest.mark.parametrize(
    "name", ["axial", "one slice", "nine slices, one more than a batch", "context", "two channels"]
)
def test_full_batches_give_the_same_labels(pair: Pair, name: str) -> None:
    """Every run of the network gets eight slices, whatever the volume has."""
    volume, slices, whole = pair(SCANS[name], full_batches=True)
    _check_alike(volume, slices, whole)
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


def test_real_scans(pair: Pair, real_cases: Path) -> None:
    _, slices, whole = pair(Scan((8, 8, 8), spec={"spacing_mm": 2.1333, "size": (192, 192)}))
    for image in sorted((real_cases / "unlabelled").glob("*.nii*"))[:2]:
        _check_alike(read_volume(image), slices, whole)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions(pair: Pair, graphs: Graphs, precision: str) -> None:
    scan, graph = SCANS["axial"], graphs(1)
    if precision == "fp16":
        graph = to_half(graph)
    else:
        upsample_by_pixel_shuffle(graph)
        graph = to_int8(graph, VolumeSlices(_volume(scan), _spec(scan)).batch(0, 4))
    tidy(graph)
    volume, slices, whole = pair(scan, precision, graph=graph)
    # int8 rounds its activations, so the last bit of an intensity can become a whole step, and this untrained network
    # has ties everywhere
    assert _agreement(_labels(whole, volume), _labels(slices, volume)) >= {"fp16": 0.9995, "int8": 0.99}[precision]


@pytest.mark.parametrize("provider", ["openvino", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_other_providers_give_the_same_labels(pair: Pair, provider: str) -> None:
    volume, slices, whole = pair()
    try:
        Segmenter(whole, provider=provider)
    except RunError as error:
        pytest.skip(f"does not load: {error}")
    assert _agreement(_labels(whole, volume, provider), _labels(slices, volume)) >= 0.9995


def test_onnx_reference_gives_the_same_labels(pair: Pair) -> None:
    from onnx.reference import ReferenceEvaluator

    volume, _, whole = pair(Scan((30, 28, 3), spec={"spacing_mm": 3.0, "size": (16, 16)}))
    segmenter = Segmenter(whole, num_threads=1)
    prepared = segmenter.prepare(volume)
    (labels,) = ReferenceEvaluator(onnx.load(whole)).run(None, {"volume": prepared.data, "spacing": prepared.spacing})
    np.testing.assert_array_equal(labels, segmenter.segment_oriented(prepared.data, prepared.spacing))


def test_class_values_outside_uint8_and_in_any_order(pair: Pair) -> None:
    classes = Classes(CHAOS_MR.names, (0, 500, -3, 252, 7))
    volume, slices, whole = pair(classes=classes)
    segmenter = Segmenter(whole, num_threads=1)
    prepared = segmenter.prepare(volume)
    values = segmenter.segment_oriented(prepared.data, prepared.spacing)
    assert set(np.unique(values)) <= set(classes.values)
    assert values.dtype == np.int32
    np.testing.assert_array_equal(_labels(whole, volume), _labels(slices, volume))
