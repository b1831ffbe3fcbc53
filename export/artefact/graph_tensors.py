"""Inputs and outputs of an artefact's graph: their names, types and shapes."""

from dataclasses import dataclass

import numpy as np

from attunet.classes import Classes
from attunet.volumes.spec import PreprocessSpec

INPUT = "slices"
VOLUME, SPACING, LABELS = "volume", "spacing", "labels"  # of a graph that takes a whole volume
DISAGREEMENT = "disagreement"  # output of an ensemble: where its members differ


Size = tuple[int | None, int | None]  # fixed height and width of the slices in pixels


@dataclass(frozen=True)
class Tensor:
    """An input or an output. axes: the length of each, or the name of one of any length; an artefact may fix two."""

    name: str
    dtype: str
    axes: tuple[int | str, ...]
    size: Size = (None, None)

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes, -1 for any."""
        fixed = dict(zip(("height", "width"), self.size, strict=True))
        return tuple(axis if isinstance(axis, int) else fixed.get(axis) or -1 for axis in self.axes)

    @property
    def datatype(self) -> str:
        """The type's name in the Open Inference Protocol and, behind TYPE_, in Triton."""
        return {"float32": "FP32", "uint8": "UINT8", "int32": "INT32"}[self.dtype]


def inputs_of(spec: PreprocessSpec, size: Size, *, whole: bool) -> list[Tensor]:
    """The inputs of a graph that takes slices, or a whole volume and its spacing."""
    if whole:
        volume = Tensor(VOLUME, "float32", (spec.num_channels, "slices", "rows", "columns"))
        return [volume, Tensor(SPACING, "float32", (3,))]
    return [Tensor(INPUT, "float32", ("batch", spec.in_channels, "height", "width"), size)]


def output_of(name: str, classes: Classes, size: Size, *, whole: bool) -> Tensor:
    """The output `name` of a graph for these classes."""
    if whole:
        return Tensor(name, label_dtype(classes).name, ("slices", "rows", "columns"))
    if name == "labels":
        return Tensor(name, "uint8", ("batch", "height", "width"), size)
    channels = len(classes) if name in ("logits", "probabilities") else 1
    of = f" of {name}" if name.startswith("attention_") else ""
    return Tensor(name, "float32", ("batch", channels, f"height{of}", f"width{of}"), size)


def label_dtype(classes: Classes) -> np.dtype[np.uint8 | np.int32]:
    """Type of the labels of a whole artefact: uint8 if every class value fits."""
    return np.dtype(np.uint8 if min(classes.values) >= 0 and max(classes.values) <= 255 else np.int32)
