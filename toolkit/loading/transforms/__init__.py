"""The augmentations, a module for each, and their order."""

import dataclasses
from importlib import import_module

from attunet.config import AugmentConfig
from attunet.loading.transform import Transform

__all__ = ["INTENSITY", "MIN_UNIFORMS", "SPATIAL", "TRANSFORMS"]

# Uniform random numbers drawn per sample, more than the transforms use: a new one with uniforms alone leaves the draws
# of the others as they are. A transform with normals, or one beyond this number, changes them.
MIN_UNIFORMS = 20


def _transform(name: str) -> Transform:
    transform = import_module(f"{__name__}.{name}").TRANSFORM
    if not isinstance(transform, Transform) or transform.name != name:
        raise TypeError(f"{__name__}.{name}: TRANSFORM must be a Transform of this name")
    return transform


_PROBABILITY = "_probability"
_NAMES = [
    field.name.removesuffix(_PROBABILITY)
    for field in dataclasses.fields(AugmentConfig)
    if field.name.endswith(_PROBABILITY)
]
# One for each `NAME_probability` of the configuration. In that order random numbers are drawn: new ones come last.
TRANSFORMS = tuple(map(_transform, _NAMES))
SPATIAL = [transform for transform in TRANSFORMS if transform.spatial]
_ORDER = ["low_resolution", "gamma", "bias_field", "contrast", "brightness", "noise"]
# In the order in which they are applied: transforms that are not named come last.
INTENSITY = sorted(
    (transform for transform in TRANSFORMS if not transform.spatial),
    key=lambda transform: _ORDER.index(transform.name) if transform.name in _ORDER else len(_ORDER),
)
