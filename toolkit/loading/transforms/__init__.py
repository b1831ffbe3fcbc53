"""The augmentations, a module for each, and their order."""

import dataclasses
from importlib import import_module

from attunet.config import AugmentConfig
from attunet.loading.transform import Transform

# Uniform random numbers drawn per sample, more than the transforms use: a new one with uniforms alone leaves the draws
# of the others as they are. A transform with normals, or one beyond this number, changes them.
MIN_UNIFORMS = 20

_FIELDS = [field.name for field in dataclasses.fields(AugmentConfig)]
_NAMES = [name.removesuffix("_probability") for name in _FIELDS if name.endswith("_probability")]
# One for each `NAME_probability` of the configuration. In that order random numbers are drawn: new ones come last.
TRANSFORMS: dict[str, Transform] = {name: import_module(f"{__name__}.{name}").TRANSFORM for name in _NAMES}
SPATIAL = [name for name, transform in TRANSFORMS.items() if transform.spatial]
_ORDER = ["low_resolution", "gamma", "bias_field", "contrast", "brightness", "noise"]
# In the order in which they are applied: transforms that are not named come last.
INTENSITY = sorted(
    (name for name, transform in TRANSFORMS.items() if not transform.spatial),
    key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER),
)
