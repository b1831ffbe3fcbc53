"""Libraries of ONNX Runtime's GPU providers: loaded, named where one is missing, kept off the terminal."""

import contextlib
import ctypes
import io
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from attunet.errors import RunError, one_line
from attunet.system.environment import versions

# ONNX Runtime 1.27 to 1.31 for CUDA 13 link against TensorRT 10.
TENSORRT_LIBRARIES = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
INSTALL = {
    "cuda": "pip install 'onnxruntime-gpu[cuda,cudnn]', and NVIDIA's driver",
    "tensorrt": "pip install 'attunet[tensorrt]' 'onnxruntime-gpu[cuda,cudnn]', and NVIDIA's driver",
}
# Lines that cuDNN's front end prints for each algorithm that it cannot use, although another one is then chosen:
# messages, descriptions of engines as JSON, and what is left of a message of several lines (empty ones and the end of a
# colour).
CUDNN_MESSAGES = re.compile(
    rb"No execution plans|cudnn|running in Fallback mode|^\{\"engineId\"|^\s*(\x1b\[\d*m)?\s*$", re.IGNORECASE
)
_output = threading.Lock()  # over the process's standard output and error


def library(name: str) -> Path:
    """The file of an ONNX Runtime provider: `cuda`, `tensorrt` or `shared`."""
    import onnxruntime

    return Path(onnxruntime.__file__).parent / "capi" / f"libonnxruntime_providers_{name}.so"


def preload(provider: str) -> None:
    """Load CUDA, cuDNN and TensorRT from Python packages. RunError names what ONNX Runtime or TensorRT lacks."""
    import onnxruntime

    if os.name == "posix" and not library(provider).exists():
        wheel = "onnxruntime-gpu" if provider == "cuda" else "onnxruntime-gpu and tensorrt"
        raise RunError(
            f"provider: {provider} needs {wheel}; the onnxruntime {onnxruntime.__version__} installed here is built "
            "without it"
        )
    with _output, contextlib.redirect_stdout(io.StringIO()):  # it prints the libraries that it does not find
        onnxruntime.preload_dlls()
    if provider == "tensorrt":
        _preload_tensorrt()


def _preload_tensorrt() -> None:
    spec = find_spec("tensorrt_libs")
    if spec is None:
        return  # perhaps the system has it; if not, the session says so
    folder = Path(next(iter(spec.submodule_search_locations or [""])))
    if missing := [name for name in TENSORRT_LIBRARIES if not (folder / name).exists()]:
        installed = versions(("tensorrt_cu13_libs", "tensorrt_cu12_libs", "tensorrt"))
        here = next((f"{package} {version}" for package, version in installed.items()), "another version")
        raise RunError(
            f"provider: tensorrt needs TensorRT 10 ({missing[0]}), installed is {here}: pip install 'attunet[tensorrt]'"
        )
    for name in TENSORRT_LIBRARIES:
        ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)


def check_libraries(provider: str) -> None:
    """Raises RunError naming a missing library. Only after a session failed: ONNX Runtime must load them first."""
    try:
        ctypes.CDLL(str(library("shared")), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library(provider)))
    except OSError as error:
        raise RunError(
            f"provider: {provider} did not load, one of its libraries is missing ({INSTALL[provider]}): "
            f"{one_line(error)}"
        ) from None


@contextlib.contextmanager
def without_cudnn_messages() -> Iterator[None]:
    """Drop the lines that cuDNN's front end writes from C++ to stderr; others come out when the block ends."""
    with _output, tempfile.TemporaryFile() as caught:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            for line in caught:
                if not CUDNN_MESSAGES.search(line):
                    os.write(2, line)
