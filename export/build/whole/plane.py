"""Rows and columns of slices inside a graph: their lengths, and resampling to the network's window and back.

Lengths and weights are computed in integers, so that every runtime gets the same ones.
"""

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from attunet.export.artefact.graph_tensors import SPACING, VOLUME
from attunet.export.build.whole.builder import GraphBuilder
from attunet.volumes.spec import MULTIPLE, PreprocessSpec


@dataclass(frozen=True)
class Axis:
    """Tensors that describe the rows or the columns of the slices.

    Args:
        native: their number. resampled: at the network's pixel size. window: with padding.
        offset: of the resampled axis in the window.
        forward: weights float32 (window, native); "" where pixels keep their size. backward: (native, window).
    """

    native: str
    resampled: str
    window: str
    offset: str
    forward: str = ""
    backward: str = ""


@dataclass(frozen=True)
class Plane:
    """The two axes of a slice, and the graph that computes with them."""

    rows: Axis
    columns: Axis

    @classmethod
    def of(cls, build: GraphBuilder, spec: PreprocessSpec) -> "Plane":
        """Rows and columns of the input `volume`, axes 2 and 3."""
        return cls(_axis(build, 2, spec), _axis(build, 3, spec))

    def to_window(self, build: GraphBuilder, images: str) -> str:
        """Images (..., Y, X) resampled and placed in the window (..., H, W), with 0 around them."""
        if self.rows.forward:
            across = build("Transpose", self.columns.forward, perm=[1, 0])
            return build("MatMul", build("MatMul", self.rows.forward, images), across)
        axes = (self.rows, self.columns)
        behind = [build.subtract(build.subtract(axis.window, axis.native), axis.offset) for axis in axes]
        none = build.constant([0, 0, 0])
        return build("Pad", images, build("Concat", none, self.rows.offset, self.columns.offset, none, *behind, axis=0))

    def to_native(self, build: GraphBuilder, logits: str) -> str:
        """Logits of a class (batch, H, W) without the padding, resampled to (batch, Y, X)."""
        if self.rows.backward:
            across = build("Transpose", self.columns.backward, perm=[1, 0])
            return build("MatMul", build("MatMul", self.rows.backward, logits), across)
        axes = (self.rows, self.columns)
        starts, ends = [axis.offset for axis in axes], [build.add(axis.offset, axis.native) for axis in axes]
        return build("Slice", logits, build.vector(starts), build.vector(ends), build.constant([1, 2]))

    def padding(self, build: GraphBuilder) -> str:
        """Float32 (H, W): 1 in the padding, 0 in the image."""
        outside = []
        for axis in (self.rows, self.columns):
            position = build.subtract(build.count(axis.window), axis.offset)
            before = build("Less", position, build.constant([0]))
            outside.append(build("Or", before, build("GreaterOrEqual", position, axis.resampled)))
        return build("Cast", build("Or", build.column(outside[0]), outside[1]), to=TensorProto.FLOAT)


def _axis(build: GraphBuilder, axis: int, spec: PreprocessSpec) -> Axis:
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
        return Axis(native, resampled, window, offset)
    behind, none = build.subtract(build.subtract(window, resampled), offset), build.constant([0])
    forward = build("Pad", _triangle_filter(build, native, resampled), build.vector([offset, none, behind, none]))
    backward = build("Pad", _triangle_filter(build, resampled, native), build.vector([none, offset, none, behind]))
    return Axis(native, resampled, window, offset, forward, backward)


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
