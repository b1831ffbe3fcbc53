"""Backends that compute a graph, of ONNX Runtime and OpenVINO. None falls back to another."""

from collections.abc import Mapping

from attunet.errors import InputError
from attunet.export.artefact.artefact import Artefact
from attunet.export.runtime.backends.backend import Backend
from attunet.export.runtime.backends.cpu import SessionBackend
from attunet.export.runtime.backends.gpu import EXECUTION_PROVIDERS, DeviceBackend
from attunet.export.runtime.backends.openvino import OpenVinoBackend

GPU_PROVIDERS = tuple(EXECUTION_PROVIDERS)
PROVIDERS = ("cpu", *GPU_PROVIDERS, "openvino")


def open_backend(
    data: bytes,
    artefact: Artefact,
    provider: str,
    *,
    num_threads: int | None = None,
    cuda_graph: bool = False,
    provider_options: Mapping[str, object] | None = None,
) -> Backend:
    """Load the graph of an artefact, from its serialised ONNX model; the other arguments are those of `Segmenter`.
    Raises InputError where the provider is unknown or cannot run this artefact, RunError where it does not load here.

    Example:
        >>> backend = open_backend(data, artefact, "cpu", num_threads=4)  # doctest: +SKIP
    """
    if provider not in PROVIDERS:
        raise InputError(f"provider: must be one of {', '.join(PROVIDERS)}, got {provider!r}")
    if num_threads is not None and not 1 <= num_threads <= 4096:
        raise InputError(f"num_threads: must be from 1 to 4096, got {num_threads}")
    if cuda_graph and provider != "cuda":
        raise InputError(f"cuda_graph: needs the provider cuda, got {provider}")
    if provider_options and provider == "cpu":
        raise InputError(f"provider_options: must be empty for cpu, got {', '.join(provider_options)}")
    if artefact.precision == "int8" and provider in GPU_PROVIDERS:
        raise InputError(f"provider: an int8 artefact runs on cpu or openvino, got {provider}; export fp16 for GPUs")
    if artefact.whole and (provider == "tensorrt" or cuda_graph):
        raise InputError(
            f"provider: a whole artefact runs on cpu, cuda (without a CUDA graph) or openvino, got {provider}"
        )
    backend: Backend
    if provider == "openvino":
        backend = OpenVinoBackend(data, artefact.precision, num_threads, provider_options)
    elif provider == "cpu":
        backend = SessionBackend(data, num_threads)
    else:
        backend = DeviceBackend(data, artefact, provider, cuda_graph=cuda_graph, provider_options=provider_options)
    _check_graph(backend, artefact)
    return backend


def _check_graph(backend: Backend, artefact: Artefact) -> None:
    """Raises InputError if the graph's inputs or outputs are not those in the metadata."""
    axis = slice(0, 1) if artefact.whole else slice(1, 2)
    inputs = {tensor.name: tensor.axes[axis][0] for tensor in artefact.inputs}
    channels = {name: shape[axis] for name, shape in backend.inputs.items()}
    fits = channels == {name: (n,) for name, n in inputs.items()} and set(artefact.outputs) <= set(backend.outputs)
    if not fits or (not artefact.whole and backend.outputs["logits"][axis] != (len(artefact.classes),)):
        raise InputError(
            f"the graph does not match its metadata: inputs {backend.inputs}, outputs {backend.outputs}; expected "
            f"{inputs}, {len(artefact.classes)} classes, and the outputs {', '.join(artefact.outputs)}"
        )
