"""Nodes and constants of an ONNX graph, written one after the other."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper


class GraphBuilder:
    """Collects nodes and constants; every method returns the name of a tensor.

    onnxscript writes such graphs too, but its functions and tensors are traced, so names and the order of nodes are not
    ours to choose.

    Args:
        prefix: prefix of all names, so that two graphs can be merged.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.int64) -> str:
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def __call__(self, operator: str, *inputs: str, **attributes: object) -> str:
        """Add a node with one output."""
        name = f"{self.prefix}{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=f"{name}_node", **attributes))
        return name

    def top(self, values: str, count: str, *, largest: bool, in_order: bool = True) -> tuple[str, str]:
        """The `count` largest or smallest of a vector, and their positions."""
        name = f"{self.prefix}TopK_{len(self.nodes)}"
        outputs = [name, f"{name}_positions"]
        options = {"axis": 0, "largest": int(largest), "sorted": int(in_order)}
        self.nodes.append(helper.make_node("TopK", [values, count], outputs, name=f"{name}_node", **options))
        return outputs[0], outputs[1]

    def name(self, tensor: str, name: str) -> str:
        """A tensor under another name."""
        self.nodes.append(helper.make_node("Identity", [tensor], [name], name=f"{self.prefix}{name}_node"))
        return name

    def add(self, a: str, b: str) -> str:
        return self("Add", a, b)

    def subtract(self, a: str, b: str) -> str:
        return self("Sub", a, b)

    def multiply(self, a: str, b: str) -> str:
        return self("Mul", a, b)

    def divide(self, a: str, b: str) -> str:
        """The quotient, of integers rounded towards 0."""
        return self("Div", a, b)

    def divide_up(self, a: str, b: str) -> str:
        """The quotient of positive integers, rounded up."""
        return self.divide(self.add(a, self.subtract(b, self.constant([1]))), b)

    def vector(self, parts: Sequence[str]) -> str:
        """One-element tensors as one vector."""
        return self("Concat", *parts, axis=0)

    def scalar(self, tensor: str) -> str:
        """A one-element tensor as a scalar."""
        return self("Squeeze", tensor, self.constant([0]))

    def count(self, length: str) -> str:
        """The integers from 0 to `length` - 1."""
        zero, one = self.constant(0), self.constant(1)
        return self("Range", zero, self.scalar(length), one)

    def column(self, vector: str) -> str:
        """A vector (N,) as (N, 1)."""
        return self("Unsqueeze", vector, self.constant([1]))

    def side(self, tensor: str, axis: int) -> str:
        """Length of one axis, as a one-element tensor."""
        return self("Shape", tensor, start=axis, end=axis + 1)
