"""A graph that takes a whole volume: intensities, resampling, slices, network and labels,
in standard ONNX operators alone.

The steps are those of `attunet.volumes.slices` and `attunet.volumes.predict`. Lengths and resampling weights are
computed in integers, so that every runtime gets the same ones. The network runs in a Loop, a few slices at a time, so
memory beyond the volume and its labels does not grow with the number of slices.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from attunet.classes import Classes
from attunet.export.artefact.artefact import label_dtype
from attunet.export.build.graph_builder import GraphBuilder
from attunet.export.build.whole_intensities import Scaling, scaling_of
from attunet.export.runtime.cpu import INPUT, LABELS, SPACING, VOLUME
from attunet.volumes.predict import MAX_BATCH_PIXELS
from attunet.volumes.spec import MULTIPLE, PreprocessSpec

BATCH_SIZE = 8


@dataclass(frozen=True)
class _Plane:
    """Tensors that describe one axis of the slices: lengths, and matrices between the native grid and the network's
    window.

    Args:
        native: length of the axis. resampled: its length at the network's pixel size. window: with padding. offset: of
            the resampled axis in the window.
        forward: float32 (window, native). backward: float32 (native, window).
    """

    native: str
    resampled: str
    window: str
    offset: str
    forward: str = ""
    backward: str = ""


@dataclass(frozen=True)
class _Frame:
    """Tensors that are the same in every batch.

    Args:
        batch: slices per batch. slices: of the volume. last: number of the last slice. places: 0 to `batch` - 1.
        shape: of the network's input. air: float32 (C, H, W), the padding's value around the image and 0 inside.
    """

    batch: str
    slices: str
    last: str
    places: str
    shape: str
    air: str


def whole_graph(
    network: onnx.ModelProto, spec: PreprocessSpec, classes: Classes, *, full_batches: bool = False
) -> onnx.ModelProto:
    """Put a network into a graph from a volume to its label map.

    Args:
        network: any precision, with input `slices` and output `logits`, for any height and width that are multiples of
            16.
        spec: pre-processing of the network.
        classes: with the values of the label map.
        full_batches: every batch has the same number of slices, for any volume; the last one repeats its last slice.
            For GPUs, whose libraries plan each convolution anew when its shape changes, which takes longer than some
            slices more.

    Returns:
        A model with the inputs `volume` float32 (C, Z, Y, X), oriented so that Z is the slice axis and Y and X are rows
        and columns of a slice, and `spacing` float32 (3,) of Z, Y and X, and the output `labels` (Z, Y, X), uint8 where
        all values fit and else int32.
    """
    values = np.array(classes.values, label_dtype(classes))
    build = GraphBuilder("whole/")
    slices = build.side(VOLUME, 1)
    planes = [_plane(build, axis, spec) for axis in (2, 3)]
    scaling = scaling_of(build, spec)
    batch, iterations = _batches(build, slices, planes, full_batches)
    frame = _frame(build, spec, slices, batch, planes, scaling)
    body = _body(network, spec, values, frame, planes, scaling, full_batches)
    always = build.constant(True, np.bool_)
    name = f"{build.prefix}batches"
    build.nodes.append(
        helper.make_node("Loop", [build.scalar(iterations), always], [name], name=f"{name}_node", body=body)
    )
    shape = build.vector([build.multiply(iterations, batch), planes[0].native, planes[1].native])
    stacked = build("Reshape", name, shape)
    build.name(build("Slice", stacked, build.constant([0]), slices, build.constant([0])), LABELS)
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


def _plane(build: GraphBuilder, axis: int, spec: PreprocessSpec) -> _Plane:
    """Rows (axis 2 of the volume) or columns (axis 3)."""
    native = build.side(VOLUME, axis)
    resampled = native
    if spec.spacing_mm is not None:
        # Shapes are computed on the CPU, also beside a GPU; a product with the input itself, not with a part of it,
        # stays there.
        extents = build.multiply(build("Cast", native, to=TensorProto.FLOAT), SPACING)
        extent = build("Slice", extents, build.constant([axis - 1]), build.constant([axis]))
        pixels = build.divide(extent, build.constant([spec.spacing_mm], np.float32))
        resampled = build("Max", build("Cast", build("Round", pixels), to=TensorProto.INT64), build.constant([1]))
    multiple = build.constant([MULTIPLE])
    padded = build.multiply(build.divide_up(resampled, multiple), multiple)
    window = build("Max", padded, build.constant([spec.size[axis - 2]]))
    offset = build.divide(build.subtract(window, resampled), build.constant([2]))
    if spec.spacing_mm is None:
        return _Plane(native, resampled, window, offset)
    behind, none = build.subtract(build.subtract(window, resampled), offset), build.constant([0])
    forward = build("Pad", _triangle_filter(build, native, resampled), build.vector([offset, none, behind, none]))
    backward = build("Pad", _triangle_filter(build, resampled, native), build.vector([none, offset, none, behind]))
    return _Plane(native, resampled, window, offset, forward, backward)


def _triangle_filter(build: GraphBuilder, length: str, new_length: str) -> str:
    """Float32 (new_length, length): `attunet.volumes.geometry`'s weights of linear interpolation,
    widened where pixels get larger.

    With s = max(1, n / m) for n pixels that become m, pixel i weighs 1 - |i - c| / s for new pixel u, c = (u + 0.5) n /
    m - 0.5. Times 2 max(n, m), all of these are integers.
    """
    two, one = build.constant([2]), build.constant([1])
    new = build.column(build.add(build.multiply(build.count(new_length), two), one))
    centre = build.subtract(build.multiply(new, length), new_length)
    pixel = build.multiply(build.multiply(build.count(length), two), new_length)
    reach = build.multiply(build("Max", length, new_length), two)
    weights = build("Max", build.subtract(reach, build("Abs", build.subtract(pixel, centre))), build.constant([0]))
    numbers = build("Cast", weights, to=TensorProto.FLOAT)
    return build.divide(numbers, build("ReduceSum", numbers, build.constant([1]), keepdims=1))


def _batches(build: GraphBuilder, slices: str, planes: list[_Plane], full: bool) -> tuple[str, str]:
    """Slices per batch and number of batches: at most `BATCH_SIZE`, fewer where slices are large,
    and as equal as can be unless `full`.
    """
    pixels = build.multiply(planes[0].window, planes[1].window)
    fitting = build("Max", build.divide(build.constant([MAX_BATCH_PIXELS]), pixels), build.constant([1]))
    most = build("Min", fitting, build.constant([BATCH_SIZE]))
    iterations = build.divide_up(slices, most)
    return most if full else build.divide_up(slices, iterations), iterations


def _frame(
    build: GraphBuilder, spec: PreprocessSpec, slices: str, batch: str, planes: list[_Plane], scaling: Scaling
) -> _Frame:
    rows, columns = planes
    sides = [build.constant([-1]), build.constant([spec.in_channels]), rows.window, columns.window]
    return _Frame(
        batch=batch,
        slices=slices,
        last=build.subtract(slices, build.constant([1])),
        places=build.count(batch),
        shape=build.vector(sides),
        air=build.multiply(_padding(build, planes), scaling.pad),
    )


def _body(
    network: onnx.ModelProto,
    spec: PreprocessSpec,
    values: np.ndarray,
    frame: _Frame,
    planes: list[_Plane],
    scaling: Scaling,
    full_batches: bool,
) -> onnx.GraphProto:
    """One batch of the Loop: labels (batch, Y, X). A last batch of fewer slices repeats one,
    since a Loop stacks outputs of one shape.
    """
    build = GraphBuilder("whole/body/")
    number, going, still, labels = (f"{build.prefix}{name}" for name in ("number", "going", "still", "labels"))
    start = build.multiply(number, frame.batch)
    if full_batches:
        chosen = build("Min", build.add(start, frame.places), frame.last)
    else:
        count = build("Min", frame.batch, build.subtract(frame.slices, start))
        chosen = build.add(start, build("Slice", frame.places, build.constant([0]), count))
    reach = spec.context_slices // 2
    with_context = build.add(build.column(chosen), build.constant(np.arange(-reach, reach + 1)[None]))
    inside = build("Min", build("Max", with_context, build.constant([0])), frame.last)
    # (batch, context, C, Y, X)
    images = build("Transpose", build("Gather", VOLUME, inside, axis=1), perm=[1, 2, 0, 3, 4])
    clipped = build("Min", build("Max", images, scaling.low), scaling.high)
    scaled = build.divide(build.subtract(clipped, scaling.shift), scaling.scale)
    padded = build.add(_to_window(build, scaled, planes), frame.air)
    build.nodes.append(helper.make_node("Reshape", [padded, frame.shape], [INPUT], name=f"{build.prefix}slices_node"))
    build.nodes.extend(network.graph.node)
    build.constants.extend(network.graph.initializer)
    computed = _greatest(build, "logits", values, planes)
    if full_batches:
        build.name(computed, labels)
    else:
        repeated = build("Min", frame.places, build.subtract(count, build.constant([1])))
        build.nodes.append(helper.make_node("Gather", [computed, repeated], [labels], name=f"{labels}_node", axis=0))
    build.name(going, still)
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


def _to_window(build: GraphBuilder, images: str, planes: list[_Plane]) -> str:
    """Images (..., Y, X) resampled and placed in the window (..., H, W), with 0 around them."""
    rows, columns = planes
    if rows.forward:
        across = build("Transpose", columns.forward, perm=[1, 0])
        return build("MatMul", build("MatMul", rows.forward, images), across)
    behind = [build.subtract(build.subtract(plane.window, plane.native), plane.offset) for plane in planes]
    none = build.constant([0, 0, 0])
    return build("Pad", images, build("Concat", none, rows.offset, columns.offset, none, *behind, axis=0))


def _greatest(build: GraphBuilder, logits: str, values: np.ndarray, planes: list[_Plane]) -> str:
    """Label value (batch, Y, X) of the class with the greatest logit on the native grid, the first one at equal logits.

    The logits of class 0 are subtracted from those of the other classes before resampling, which saves resampling one
    class. Comparing the classes one by one takes a third of the time of ArgMax and Gather, which work with int64.
    """
    classes = [build("Gather", logits, build.constant(index), axis=1) for index in range(len(values))]
    best, label = build.constant(0, np.float32), build.constant(values[0], values.dtype)
    for value, logit in zip(values[1:], classes[1:], strict=True):
        advantage = _to_native(build, build.subtract(logit, classes[0]), planes)
        label = build("Where", build("Greater", advantage, best), build.constant(value, values.dtype), label)
        best = build("Max", best, advantage)
    return label


def _padding(build: GraphBuilder, planes: list[_Plane]) -> str:
    """Float32 (H, W): 1 in the padding, 0 in the image."""
    sides = []
    for plane in planes:
        position = build.subtract(build.count(plane.window), plane.offset)
        sides.append(
            build(
                "Or", build("Less", position, build.constant([0])), build("GreaterOrEqual", position, plane.resampled)
            )
        )
    return build("Cast", build("Or", build.column(sides[0]), sides[1]), to=TensorProto.FLOAT)


def _to_native(build: GraphBuilder, logits: str, planes: list[_Plane]) -> str:
    """Logits of a class (batch, H, W) without the padding, resampled to (batch, Y, X)."""
    rows, columns = planes
    if rows.backward:
        across = build("Transpose", columns.backward, perm=[1, 0])
        return build("MatMul", build("MatMul", rows.backward, logits), across)
    starts, ends = ([p.offset for p in planes], [build.add(p.offset, p.native) for p in planes])
    return build("Slice", logits, build.vector(starts), build.vector(ends), build.constant([1, 2]))
