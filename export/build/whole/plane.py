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
    """Tensors that describe the rows or the columns of the slices."""

    native: str  # their number
    resampled: str  # their number at the network's pixel size
    window: str  # with padding
    offset: str  # of the resampled axis in the window
    forward: str = ""  # weights float32 (window, native); "" where pixels keep their size
    backward: str = ""  # weights float32 (native, window)


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
        ends = [build("Sub", build("Sub", one.window, one.native), one.offset) for one in (self.rows, self.columns)]
        none = [0, 0, 0]
        return build("Pad", images, build.vector(none, self.rows.offset, self.columns.offset, none, *ends))

    def to_native(self, build: GraphBuilder, logits: str) -> str:
        """Logits of a class (batch, H, W) without the padding, resampled to (batch, Y, X)."""
        if self.rows.backward:
            across = build("Transpose", self.columns.backward, perm=[1, 0])
            return build("MatMul", build("MatMul", self.rows.backward, logits), across)
        axes = (self.rows, self.columns)
        ends = build.vector(*(build("Add", axis.offset, axis.native) for axis in axes))
        return build("Slice", logits, build.vector(*(axis.offset for axis in axes)), ends, [1, 2])

    def padding(self, build: GraphBuilder) -> str:
        """Float32 (H, W): 1 in the padding, 0 in the image."""
        outside = []
        for axis in (self.rows, self.columns):
            position = build("Sub", build.count(axis.window), axis.offset)
            before = build("Less", position, [0])
            outside.append(build("Or", before, build("GreaterOrEqual", position, axis.resampled)))
        return build("Cast", build("Or", build.column(outside[0]), outside[1]), to=TensorProto.FLOAT)


def _axis(build: GraphBuilder, axis: int, spec: PreprocessSpec) -> Axis:
    native = build.side(VOLUME, axis)
    resampled = native
    if spec.spacing_mm is not None:
        # Shapes are computed on the CPU, also beside a GPU; a product with the input itself, not with a part of it,
        # stays there.
        extents = build("Mul", build("Cast", native, to=TensorProto.FLOAT), SPACING)
        extent = build("Slice", extents, [axis - 1], [axis])
        pixels = build("Div", extent, build.constant([spec.spacing_mm], np.float32))
        resampled = build("Max", build("Cast", build("Round", pixels), to=TensorProto.INT64), [1])
    padded = build("Mul", build.divide_up(resampled, [MULTIPLE]), [MULTIPLE])
    window = build("Max", padded, [spec.size[axis - 2]])
    missing = build("Sub", window, resampled)
    offset = build("Div", missing, [2])
    if spec.spacing_mm is None:
        return Axis(native, resampled, window, offset)
    behind = build("Sub", missing, offset)
    forward = build("Pad", _triangle_filter(build, native, resampled), build.vector(offset, [0], behind, [0]))
    backward = build("Pad", _triangle_filter(build, resampled, native), build.vector([0], offset, [0], behind))
    return Axis(native, resampled, window, offset, forward, backward)


def _triangle_filter(build: GraphBuilder, length: str, new_length: str) -> str:
    """Float32 (new_length, length): `attunet.volumes.geometry`'s weights of linear interpolation,
    widened where pixels get larger.

    With s = max(1, n / m) for n pixels that become m, pixel i weighs 1 - |i - c| / s for new pixel u, c = (u + 0.5) n /
    m - 0.5. Times 2 max(n, m), all of these are integers.
    """
    new = build.column(build("Add", build("Mul", build.count(new_length), [2]), [1]))
    centre = build("Sub", build("Mul", new, length), new_length)
    pixel = build("Mul", build("Mul", build.count(length), [2]), new_length)
    reach = build("Mul", build("Max", length, new_length), [2])
    weights = build("Max", build("Sub", reach, build("Abs", build("Sub", pixel, centre))), [0])
    numbers = build("Cast", weights, to=TensorProto.FLOAT)
    return build("Div", numbers, build("ReduceSum", numbers, [1], keepdims=1))
