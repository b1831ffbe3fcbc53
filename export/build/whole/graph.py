"""A graph from a whole volume to its label map, in standard ONNX operators alone.

The steps are those of `attunet.volumes.slices` and `attunet.volumes.predict`. The network runs in a Loop, a few slices
at a time, so memory beyond the volume and its labels does not grow with the number of slices.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from attunet.classes import Classes
from attunet.export.artefact.graph_tensors import INPUT, LABELS, SPACING, VOLUME, label_dtype
from attunet.export.build.whole.builder import GraphBuilder
from attunet.export.build.whole.intensities import Scaling, scaling_of
from attunet.export.build.whole.plane import Plane
from attunet.volumes.predict import MAX_BATCH_PIXELS
from attunet.volumes.spec import PreprocessSpec

BATCH_SIZE = 8


@dataclass(frozen=True)
class _Frame:
    """Tensors of the outer graph, which are the same in every batch."""

    plane: Plane
    scaling: Scaling
    slices: str  # their number
    batch: str  # slices in one
    batches: str  # their number
    last: str  # number of the last slice
    places: str  # 0 to `batch` - 1
    shape: str  # of the network's input
    air: str  # float32 (C, H, W), the padding's value around the image and 0 inside


def whole_graph(
    network: onnx.ModelProto, spec: PreprocessSpec, classes: Classes, *, full_batches: bool = False
) -> onnx.ModelProto:
    """Put a network into a graph from a volume to its label map.

    Args:
        network: any precision, from `slices` to `logits`, for any height and width that are multiples of 16.
        spec: pre-processing of the network.
        classes: with the values of the label map.
        full_batches: every batch of any volume has the same number of slices; the last one repeats its last slice. For
            GPUs, whose libraries plan each convolution anew when its shape changes, which takes as long as many slices.

    Returns:
        A model with the inputs `volume` float32 (C, Z, Y, X), oriented so that Z is the slice axis and Y and X are rows
        and columns of a slice, and `spacing` float32 (3,) of Z, Y and X, and the output `labels` (Z, Y, X), uint8 where
        all values fit and else int32.
    """
    values = np.array(classes.values, label_dtype(classes))
    build = GraphBuilder("whole/")
    frame = _frame(build, spec, full_batches)
    body = _body(network, spec, values, frame, full_batches)
    batches = build("Loop", build.scalar(frame.batches), build.constant(True, np.bool_), body=body)
    rows, columns = frame.plane.rows.native, frame.plane.columns.native
    stacked = build("Reshape", batches, build.vector(build("Mul", frame.batches, frame.batch), rows, columns))
    build("Slice", stacked, [0], frame.slices, [0], name=LABELS)
    kind = helper.np_dtype_to_tensor_dtype(values.dtype)
    graph = helper.make_graph(
        build.nodes,
        "whole",
        [
            helper.make_tensor_value_info(VOLUME, TensorProto.FLOAT, [spec.num_channels, "slices", "rows", "columns"]),
            helper.make_tensor_value_info(SPACING, TensorProto.FLOAT, [3]),
        ],
        [helper.make_tensor_value_info(LABELS, kind, ["slices", "rows", "columns"])],
        build.constants,
    )
    opsets = [opset for opset in network.opset_import if not opset.domain]
    return helper.make_model(
        graph, opset_imports=opsets, ir_version=network.ir_version, producer_name=network.producer_name
    )


def _frame(build: GraphBuilder, spec: PreprocessSpec, full_batches: bool) -> _Frame:
    """Batches have at most `BATCH_SIZE` slices, fewer where slices are large, and equal sizes unless `full_batches`."""
    slices, plane, scaling = build.side(VOLUME, 1), Plane.of(build, spec), scaling_of(build, spec)
    pixels = build("Mul", plane.rows.window, plane.columns.window)
    fitting = build("Max", build("Div", [MAX_BATCH_PIXELS], pixels), [1])
    most = build("Min", fitting, [BATCH_SIZE])
    batches = build.divide_up(slices, most)
    batch = most if full_batches else build.divide_up(slices, batches)
    return _Frame(
        plane=plane,
        scaling=scaling,
        slices=slices,
        batch=batch,
        batches=batches,
        last=build("Sub", slices, [1]),
        places=build.count(batch),
        shape=build.vector([-1], [spec.in_channels], plane.rows.window, plane.columns.window),
        air=build("Mul", plane.padding(build), scaling.pad),
    )


def _body(
    network: onnx.ModelProto, spec: PreprocessSpec, values: np.ndarray, frame: _Frame, full_batches: bool
) -> onnx.GraphProto:
    """One batch of the Loop: labels (batch, Y, X). A smaller last batch repeats one, since outputs have one shape."""
    build = GraphBuilder("whole/body/")
    number, going, still, labels = (f"{build.prefix}{name}" for name in ("number", "going", "still", "labels"))
    start = build("Mul", number, frame.batch)
    if full_batches:
        chosen = build("Min", build("Add", start, frame.places), frame.last)
    else:
        count = build("Min", frame.batch, build("Sub", frame.slices, start))
        chosen = build("Add", start, build("Slice", frame.places, [0], count))
    reach = spec.context_slices // 2
    with_context = build("Add", build.column(chosen), build.constant(np.arange(-reach, reach + 1)[None]))
    inside = build("Min", build("Max", with_context, [0]), frame.last)
    # (batch, context, C, Y, X)
    images = build("Transpose", build("Gather", VOLUME, inside, axis=1), perm=[1, 2, 0, 3, 4])
    clipped = build("Min", build("Max", images, frame.scaling.low), frame.scaling.high)
    scaled = build("Div", build("Sub", clipped, frame.scaling.shift), frame.scaling.scale)
    padded = build("Add", frame.plane.to_window(build, scaled), frame.air)
    build("Reshape", padded, frame.shape, name=INPUT)
    build.nodes.extend(network.graph.node)
    build.constants.extend(network.graph.initializer)
    computed = _greatest(build, "logits", values, frame.plane)
    if full_batches:
        build("Identity", computed, name=labels)
    else:
        build("Gather", computed, build("Min", frame.places, build("Sub", count, [1])), name=labels, axis=0)
    build("Identity", going, name=still)
    kind = helper.np_dtype_to_tensor_dtype(values.dtype)
    return helper.make_graph(
        build.nodes,
        "batch",
        [
            helper.make_tensor_value_info(number, TensorProto.INT64, []),
            helper.make_tensor_value_info(going, TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info(still, TensorProto.BOOL, []),
            helper.make_tensor_value_info(labels, kind, ["batch", "rows", "columns"]),
        ],
        build.constants,
    )


def _greatest(build: GraphBuilder, logits: str, values: np.ndarray, plane: Plane) -> str:
    """Label value (batch, Y, X) of the class with the greatest logit on the native grid, the first one at equal logits.

    The logits of class 0 are subtracted from those of the other classes before resampling, which saves resampling one
    class. Comparing the classes one by one takes a third of the time of ArgMax and Gather, which work with int64.
    """
    classes = [build("Gather", logits, index, axis=1) for index in range(len(values))]
    best, label = build.constant(0, np.float32), build.constant(values[0], values.dtype)
    for value, logit in zip(values[1:], classes[1:], strict=True):
        advantage = plane.to_native(build, build("Sub", logit, classes[0]))
        label = build("Where", build("Greater", advantage, best), build.constant(value, values.dtype), label)
        best = build("Max", best, advantage)
    return label
