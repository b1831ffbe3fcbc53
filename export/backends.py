"""Who computes the graph: ONNX Runtime on a CPU, a GPU or TensorRT, or the openvino package; never another one than was asked for."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from attunet.errors import InputError, RunError
from attunet.export.artefact import Artefact
from attunet.export.device import DeviceBackend
from attunet.export.session import INPUT, SessionBackend, Shapes, failure, one_line

PROVIDERS = ("cpu", "cuda", "tensorrt", "openvino")


class Backend(Protocol):
    """One loaded graph. `options` are what was really asked of the library, for the environment of a result."""

    options: dict[str, Any]
    inputs: Shapes
    outputs: Shapes

    def run(self, outputs: Sequence[str], slices: np.ndarray) -> list[np.ndarray]:
        """The named outputs for float32 slices (N, C, H, W); may be called from several threads."""


def open_backend(
    data: bytes,
    artefact: Artefact,
    provider: str,
    *,
    num_threads: int | None = None,
    cuda_graph: bool = False,
    provider_options: Mapping[str, Any] | None = None,
) -> Backend:
    """Loads the graph. InputError for an unknown provider or one that cannot run this artefact; RunError for one that is not there."""
    if provider not in PROVIDERS:
        raise InputError(f"provider: must be one of {', '.join(PROVIDERS)}, got {provider!r}")
    if num_threads is not None and not 1 <= num_threads <= 4096:
        raise InputError(f"num_threads: must be from 1 to 4096, got {num_threads}")
    if cuda_graph and provider != "cuda":
        raise InputError(f"cuda_graph: needs the provider cuda, got {provider}")
    if provider_options and provider == "cpu":
        raise InputError(f"provider_options: cpu has none, got {', '.join(provider_options)}")
    if artefact.precision == "int8" and provider in ("cuda", "tensorrt"):
        raise InputError(f"provider: an int8 artefact runs on cpu or openvino, got {provider}; export fp16 for GPUs")
    backend: Backend
    if provider == "openvino":
        backend = OpenVinoBackend(data, artefact.precision, num_threads, provider_options)
    elif provider == "cpu":
        backend = SessionBackend(data, num_threads)
    else:
        backend = DeviceBackend(data, provider, artefact.precision, cuda_graph=cuda_graph, provider_options=provider_options)
    _check_graph(backend, artefact)
    return backend


def _check_graph(backend: Backend, artefact: Artefact) -> None:
    """InputError where the graph takes or gives something else than the metadata say."""
    channels, classes = (shape[1:2] for shape in (backend.inputs.get(INPUT, ()), backend.outputs.get("logits", ())))
    missing = set(artefact.outputs) - set(backend.outputs)
    if missing or list(backend.inputs) != [INPUT] or channels != (artefact.spec.in_channels,) or classes != (len(artefact.classes),):
        raise InputError(
            f"the graph does not fit its metadata: inputs {backend.inputs}, outputs {backend.outputs}; expected {INPUT} with "
            f"{artefact.spec.in_channels} channels, logits with {len(artefact.classes)}, and the outputs {', '.join(artefact.outputs)}"
        )


class OpenVinoBackend:
    """The openvino package on the CPU, an extra; an infer request is made for every call, so calls may overlap."""

    def __init__(self, data: bytes, precision: str, num_threads: int | None, provider_options: Mapping[str, Any] | None = None) -> None:
        try:
            import openvino
        except ImportError as error:
            raise RunError(f"provider: openvino needs the openvino package (pip install attunet[openvino]): {error}") from None
        self.options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", **({"INFERENCE_NUM_THREADS": num_threads} if num_threads else {})}
        if precision != "fp16":
            self.options["INFERENCE_PRECISION_HINT"] = "f32"  # its own choice is bf16 where the CPU has it
        self.options |= provider_options or {}
        try:
            core = openvino.Core()
            self._model = core.compile_model(core.read_model(io.BytesIO(data)), "CPU", self.options)
        except Exception as error:
            raise InputError(f"openvino cannot load this graph: {one_line(error)}") from error
        self.options |= {name: _plain(self._model.get_property(name)) for name in (*self.options, "INFERENCE_NUM_THREADS", "NUM_STREAMS")}
        self.inputs, self.outputs = _port_shapes(self._model.inputs), _port_shapes(self._model.outputs)

    def run(self, outputs: Sequence[str], slices: np.ndarray) -> list[np.ndarray]:
        try:
            results = self._model.create_infer_request().infer({INPUT: slices})
            return [np.array(results[name]) for name in outputs]
        except Exception as error:
            raise failure("openvino", error) from error


def _plain(value: Any) -> Any:
    """A property as a JSON value: openvino has types of its own for some."""
    return value if isinstance(value, int | float | str) else value.to_string() if hasattr(value, "to_string") else str(value)


def _port_shapes(ports: Any) -> Shapes:
    """openvino keeps several names for a port behind a cast; the one that the file gives it has no `graph_` added."""
    shapes = {}
    for port in ports:
        shape = tuple(axis.get_length() if axis.is_static else -1 for axis in port.get_partial_shape())
        names = sorted(port.get_names(), key=lambda name: (name.startswith("graph_"), name))
        shapes[names[0]] = shape
    return shapes
