"""attunet: U-Net and Attention U-Net for slices of medical volumes, from a folder of scans to an evaluated ONNX file.

The names below are the public API. Each is imported when it is first used, so that `import attunet` needs neither torch
nor accelerate, and neither do `Segmenter`, `load_model` (of an artefact), `open_store` and `prepare`. Their types are
in `__init__.pyi`.
"""

from importlib import import_module

from attunet.system.no_telemetry import switch_off_telemetry
from attunet.version import __version__

switch_off_telemetry()  # here, because it must precede the libraries that it silences

_MODULES = {
    "AttentionUNet": "attunet.models.attention_unet",
    "Config": "attunet.config",
    "DataConfig": "attunet.config",
    "InputError": "attunet.errors",
    "RunError": "attunet.errors",
    "Segmenter": "attunet.export.runtime.segmenter",
    "UNet": "attunet.models.unet",
    "attention_gate": "attunet.ops.attention_gate",
    "evaluate": "attunet.benchmarks.evaluation.evaluate",
    "export": "attunet.export",  # a package that can be called, see there
    "load_model": "attunet.export.load_model",
    "open_store": "attunet.store",
    "prepare": "attunet.preparation.prepare",
    "read_config": "attunet.presets",
    "train": "attunet.training.loop",
}

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'attunet' has no attribute {name!r}")
    module = import_module(_MODULES[name])
    return module if name == "export" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
