"""Nodes and constants of an ONNX graph, written one after the other."""

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper


class GraphBuilder:
    """Collects nodes and constants, whose names begin with `prefix`, so that two graphs can be merged; every method
    returns the name of a tensor. With onnxscript, which traces functions, names and order are not ours to choose.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.int64) -> str:
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def __call__(
        self, operator: str, *inputs: str | int | list[int], name: str | None = None, **attributes: object
    ) -> str:
        """Add a node with one output. Inputs are names of tensors, and integers. `Div` rounds integers towards 0."""
        name = name or f"{self.prefix}{operator}_{len(self.nodes)}"
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        self.nodes.append(helper.make_node(operator, names, [name], name=f"{name}_node", **attributes))
        return name

    def top(self, values: str, count: str, *, largest: bool, in_order: bool = True) -> tuple[str, str]:
        """The `count` largest or smallest of a vector, and their positions."""
        name = f"{self.prefix}TopK_{len(self.nodes)}"
        outputs = [name, f"{name}_positions"]
        options = {"axis": 0, "largest": int(largest), "sorted": int(in_order)}
        self.nodes.append(helper.make_node("TopK", [values, count], outputs, name=f"{name}_node", **options))
        return outputs[0], outputs[1]

    def divide_up(self, a: str, b: str | list[int]) -> str:
        """The quotient of positive integers, rounded up."""
        return self("Div", self("Add", a, self("Sub", b, [1])), b)

    def vector(self, *parts: str | list[int]) -> str:
        """Vectors, most of one element, as one vector."""
        return self("Concat", *parts, axis=0)

    def scalar(self, tensor: str) -> str:
        """A one-element tensor as a scalar."""
        return self("Squeeze", tensor, [0])

    def count(self, length: str) -> str:
        """The integers from 0 to `length` - 1."""
        return self("Range", 0, self.scalar(length), 1)

    def column(self, vector: str) -> str:
        """A vector (N,) as (N, 1)."""
        return self("Unsqueeze", vector, [1])

    def side(self, tensor: str, axis: int) -> str:
        """Length of one axis, as a one-element tensor."""
        return self("Shape", tensor, start=axis, end=axis + 1)
