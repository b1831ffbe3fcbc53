"""Intensity scaling inside a whole graph: percentiles, mean and deviation of `attunet.volumes.intensity`."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from onnx import TensorProto

from attunet.export.artefact.graph_tensors import VOLUME
from attunet.export.build.whole.builder import GraphBuilder
from attunet.volumes.spec import PreprocessSpec

MAX_GROUP = 64  # maximum number of values in a group whose extreme is computed


@dataclass(frozen=True)
class Scaling:
    """Tensors float32 (C, 1, 1): intensities become (clip(x, low, high) - shift) / scale, and padding is `pad`."""

    low: str
    high: str
    shift: str
    scale: str
    pad: str


def scaling_of(build: GraphBuilder, spec: PreprocessSpec) -> Scaling:
    """Intensity scaling by the rule that `spec.normalization` names."""
    if spec.normalization == "zscore":
        return _scaling_by_statistics(build, spec)
    low, high = spec.window if spec.normalization == "ct" else (-np.inf, np.inf)
    shift, scale = ((low + high) / 2, (high - low) / 2) if spec.normalization == "ct" else (0.0, 1.0)
    low_tensor, high_tensor, shift_tensor, scale_tensor = (
        build.constant(np.full((spec.num_channels, 1, 1), value), np.float32) for value in (low, high, shift, scale)
    )
    if spec.normalization == "ct":
        pad = build("Div", build("Sub", low_tensor, shift_tensor), scale_tensor)
    else:
        pad = build("Reshape", build("ReduceMin", VOLUME, [1, 2, 3]), [spec.num_channels, 1, 1])
    return Scaling(low_tensor, high_tensor, shift_tensor, scale_tensor, pad)


def _scaling_by_statistics(build: GraphBuilder, spec: PreprocessSpec) -> Scaling:
    """Clipped at two percentiles of the volume, to mean 0 and standard deviation 1."""
    channels = [build("Gather", VOLUME, channel, axis=0) for channel in range(spec.num_channels)]
    flat = [build("Reshape", channel, [-1]) for channel in channels]
    shape, slices = [spec.num_channels, 1, 1], [1]
    low, high = (
        build("Reshape", build.vector(*(_percentile(build, one, share, from_top) for one in flat)), shape)
        for share, from_top in zip(spec.clip_percentiles, (False, True), strict=True)
    )
    clipped = build("Min", build("Max", VOLUME, build("Unsqueeze", low, slices)), build("Unsqueeze", high, slices))
    shift = _mean(build, clipped)
    spread = _or_one(build, build("Sub", high, low))
    centred = build("Sub", clipped, build("Unsqueeze", shift, slices))
    centred = build("Div", centred, build("Unsqueeze", spread, slices))  # so that no square is too large, or 0
    deviation = build("Sqrt", _mean(build, build("Mul", centred, centred)))
    scale = _or_one(build, build("Mul", deviation, spread))
    return Scaling(low, high, shift, scale, build("Div", build("Sub", low, shift), scale))


def _or_one(build: GraphBuilder, length: str) -> str:
    """A tensor of lengths with 1 for 0."""
    zero, one = (build.constant([value], np.float32) for value in (0, 1))
    return build("Where", build("Greater", length, zero), length, one)


def _mean(build: GraphBuilder, volume: str) -> str:
    """Mean per channel of (C, Z, Y, X), as (C, 1, 1): axis by axis, so that no sum is long and loses precision."""
    for axis in (3, 2, 1):
        volume = build("ReduceMean", volume, [axis], keepdims=1)
    return build("Squeeze", volume, [1])


def _percentile(build: GraphBuilder, flat: str, percentile: float, from_top: bool) -> str:
    """Percentile of a vector (N,), linear between ranks: (1,). Sorts no more than the values beyond it."""
    share = Fraction(str(percentile)) / 100
    last = build("Sub", build.side(flat, 0), [1])
    # rank = last * share; last is divided first, so that no product exceeds 32 bits, in which some runtimes compute
    numerator, denominator = build.constant([share.numerator]), build.constant([share.denominator])
    quotient = build("Div", last, denominator)
    rest = build("Mul", build("Sub", last, build("Mul", quotient, denominator)), numerator)
    below = build("Add", build("Mul", quotient, numerator), build("Div", rest, denominator))
    remainder = build("Sub", rest, build("Mul", build("Div", rest, denominator), denominator))
    weight = build("Div", *(build("Cast", x, to=TensorProto.FLOAT) for x in (remainder, denominator)))
    above = build("Min", build("Add", below, [1]), last)
    positions = [build("Sub", last, rank) if from_top else rank for rank in (below, above)]
    count = build("Add", positions[0] if from_top else positions[1], [1])
    extremes = _extremes(build, flat, count, 1 - share if from_top else share, from_top)
    first, second = (build("Gather", extremes, position, axis=0) for position in positions)
    return build("Add", first, build("Mul", build("Sub", second, first), weight))


def _extremes(build: GraphBuilder, flat: str, count: str, share: Fraction, largest: bool) -> str:
    """The `count` largest or smallest values of (N,), about a `share` of them, in order: (count,).

    They lie in the `count` groups with the largest maxima. To sort the maxima of groups and then those groups takes a
    third of the time.
    """
    length = build.side(flat, 0)
    size = build("Min", [max(1, round(float(share) ** -0.5)) if share else MAX_GROUP], length)
    groups = build("Div", length, size)
    end = build("Mul", groups, size)
    whole, rest = build("Slice", flat, [0], end), build("Slice", flat, end, length)
    columns = build("Reshape", whole, build.vector(size, groups))
    bounds = build("ReduceMax" if largest else "ReduceMin", columns, [0], keepdims=0)
    _, chosen = build.top(bounds, build("Min", count, groups), largest=largest, in_order=False)
    candidates = build("Reshape", build("Gather", columns, chosen, axis=1), [-1])
    values, _ = build.top(build("Concat", candidates, rest, axis=0), count, largest=largest)
    return values
