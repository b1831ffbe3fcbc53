"""Inputs and outputs of an artefact's graph: their names, types and shapes."""

from dataclasses import dataclass

import numpy as np

from attunet.classes import Classes

INPUT = "slices"
VOLUME, SPACING, LABELS = "volume", "spacing", "labels"  # of a graph that takes a whole volume
DISAGREEMENT = "disagreement"  # output of an ensemble: where its members differ
# NumPy's name of a type: that of the Open Inference Protocol, which stands behind TYPE_ in Triton
DATATYPES = {"float32": "FP32", "uint8": "UINT8", "int32": "INT32"}


@dataclass(frozen=True)
class Tensor:
    """An input or an output."""

    name: str
    dtype: str
    axes: tuple[int | str, ...]  # their lengths, or the name of one of any length
    size: tuple[int | None, int | None] = (None, None)  # height and width of slices, where an artefact fixes them

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes, -1 for any."""
        fixed = dict(zip(("height", "width"), self.size, strict=True))
        return tuple(axis if isinstance(axis, int) else fixed.get(axis) or -1 for axis in self.axes)

    @property
    def datatype(self) -> str:
        return DATATYPES[self.dtype]


def label_dtype(classes: Classes) -> np.dtype[np.uint8 | np.int32]:
    """Type of the labels of a whole artefact: uint8 if every class value fits."""
    return np.dtype(np.uint8 if min(classes.values) >= 0 and max(classes.values) <= 255 else np.int32)
