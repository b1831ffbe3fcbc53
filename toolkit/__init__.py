"""attunet: U-Net and Attention U-Net for slices of medical volumes, from a folder of scans to an evaluated ONNX file."""

from importlib import import_module

__version__ = "0.1.0"

_PUBLIC = {  # name: module; imported when a name is first used, so that prediction with an artefact imports no torch
    "Segmenter": "attunet.export.runtime.segmenter",
    "load_model": "attunet.export.load_model",
}
__all__ = ["Segmenter", "__version__", "load_model"]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'attunet' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
