"""Percentiles, mean and deviation inside a graph are NumPy's, for volumes of every size and with many equal values."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402

from attunet.export.artefact.graph_tensors import VOLUME  # noqa: E402
from attunet.export.build.whole.builder import GraphBuilder  # noqa: E402
from attunet.export.build.whole.intensities import scaling_of  # noqa: E402
from attunet.volumes.spec import PreprocessSpec  # noqa: E402

FIELDS = ("low", "high", "shift", "scale", "pad")


def _statistics(volume: np.ndarray, percentiles: tuple[float, float]) -> dict[str, np.ndarray]:
    onnxruntime = pytest.importorskip("onnxruntime")
    channels = len(volume)
    build = GraphBuilder("test/")
    spec = PreprocessSpec("LPS", 2, spacing_mm=None, size=(16, 16), clip_percentiles=percentiles, num_channels=channels)
    scaling = scaling_of(build, spec)
    for field in FIELDS:
        build("Identity", getattr(scaling, field), name=field)
    inputs = [helper.make_tensor_value_info(VOLUME, TensorProto.FLOAT, [channels, "slices", "rows", "columns"])]
    outputs = [helper.make_tensor_value_info(field, TensorProto.FLOAT, [channels, 1, 1]) for field in FIELDS]
    graph = helper.make_graph(build.nodes, "statistics", inputs, outputs, build.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(FIELDS, session.run(list(FIELDS), {VOLUME: volume}), strict=True))


@pytest.mark.parametrize("percentiles", [(0.5, 99.5), (0.0, 98.7), (1.3, 100.0), (10.0, 50.0), (60.0, 70.0)])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 1, 2), (3, 1, 1), (1, 9, 7), (2, 8, 4), (5, 13, 1), (3, 40, 37), (7, 64, 64)]
)
@pytest.mark.parametrize("kind", ["noise", "few values"])
def test_statistics_are_those_of_numpy(
    shape: tuple[int, int, int], percentiles: tuple[float, float], kind: str
) -> None:
    random = np.random.default_rng(sum(shape))
    volume = (
        random.normal(0, 1000, (2, *shape))
        if kind == "noise"
        else random.integers(0, 3, (2, *shape)) * random.integers(0, 2, (2, *shape))
    )
    volume = volume.astype(np.float32)
    got = _statistics(volume, percentiles)
    for channel, data in enumerate(volume):
        low, high = np.percentile(data.astype(np.float64), percentiles)
        clipped = np.clip(data.astype(np.float64), low, high)
        size = max(1.0, float(np.abs(data).max()))
        assert got["low"][channel, 0, 0] == pytest.approx(low, abs=1e-6 * size)
        assert got["high"][channel, 0, 0] == pytest.approx(high, abs=1e-6 * size)
        assert got["shift"][channel, 0, 0] == pytest.approx(clipped.mean(), abs=1e-6 * size)
        deviation = clipped.std()
        if deviation == 0 or deviation > 1e-3 * size:
            assert got["scale"][channel, 0, 0] == pytest.approx(deviation or 1.0, rel=1e-5)


@pytest.mark.parametrize("factor", [1e-30, 1e-22, 1e15, 1e20, 1e30])
def test_the_deviation_of_very_large_and_small_intensities_is_no_overflow(factor: float) -> None:
    volume = (np.random.default_rng(1).normal(0, 1000, (1, 4, 20, 20)) * factor).astype(np.float32)
    low, high = np.percentile(volume.astype(np.float64), (0.5, 99.5))
    expected = np.clip(volume.astype(np.float64), low, high).std()
    assert _statistics(volume, (0.5, 99.5))["scale"].item() == pytest.approx(expected, rel=1e-5)
