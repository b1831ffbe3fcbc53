"""ONNX Runtime's CUDA and TensorRT providers, with every node on the device, and input and outputs in its memory."""

import contextlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from attunet.errors import RunError, one_line
from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.graph_tensors import INPUT
from attunet.export.runtime.backends.backend import Backend
from attunet.export.runtime.backends.cpu import (
    NOT_WHILE_LOADING,
    SILENT,
    WARNINGS,
    refused_graph,
    run_session,
    session_options,
    shapes,
)
from attunet.export.runtime.backends.cuda_options import cuda_options, tensorrt_options
from attunet.export.runtime.backends.gpu_libraries import check_libraries, preload, without_cudnn_messages
from attunet.export.runtime.stop import Stop

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding, OrtValue, RunOptions

EXECUTION_PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
# See `attunet.export.build.precision.biases_as_additions`.
DISABLED_OPTIMIZERS = {"cuda": [*NOT_WHILE_LOADING, "ConvAddFusion"], "tensorrt": NOT_WHILE_LOADING}

Key = tuple[tuple[str, ...], tuple[int, ...]]  # outputs, and the shape of a batch


class Binding(NamedTuple):
    """Buffers of one batch shape; without output buffers ONNX Runtime allocates them."""

    binding: "IOBinding"
    buffer: "OrtValue"
    results: "list[OrtValue]"
    run_options: "RunOptions"


class DeviceBackend(Backend):
    """ONNX Runtime on a GPU, with input and outputs bound to device buffers that are allocated once per batch shape.

    Runs are serialised, since they share the buffers. A batch is filled up to the largest one of its height and width
    so far, because every change of shape makes cuDNN plan all convolutions anew: 0.26 s for 31 of them on an H200,
    where 8 slices of 256 × 256 take 4 ms. With `cuda_graph` the first batch shape is captured. Other shapes run without
    a CUDA graph, and so do attention maps, whose buffers ONNX Runtime allocates.
    """

    MAX_SHAPES = 8  # batch shapes with buffers
    MAX_FILLED = 32  # slices of the largest batch that smaller ones are filled up to

    def __init__(
        self,
        data: bytes,
        artefact: Artefact,
        provider: str,
        *,
        cuda_graph: bool,
        provider_options: Mapping[str, object] | None,
    ) -> None:
        precision = artefact.precision
        settings: dict[str, object] = (
            {**cuda_options(precision), "enable_cuda_graph": int(cuda_graph)}
            if provider == "cuda"
            else tensorrt_options(precision, data)
        )
        settings |= provider_options or {}
        texts = {name: str(value) for name, value in settings.items()}
        session = _open_device_session(data, provider, texts, artefact.whole)
        used = session.get_provider_options()[EXECUTION_PROVIDERS[provider]]
        self.options = {name: used.get(name, value) for name, value in settings.items() if not name.endswith("_path")}
        self._bind(session, provider, "cuda", cuda_graph, device_id=int(str(settings.get("device_id", 0))))

    def _bind(
        self, session: "InferenceSession", provider: str, device: str, cuda_graph: bool, device_id: int = 0
    ) -> None:
        self._session, self.provider, self._cuda_graph = session, provider, cuda_graph
        self._device = (device, device_id)
        self.inputs, self.outputs = shapes(session)
        self._lock = threading.Lock()
        self._bindings: dict[Key, Binding] = {}
        self._captured: Key | None = None
        self._shapes_run: set[tuple[tuple[int, ...], ...]] = set()
        self._largest: dict[tuple[int, ...], int] = {}  # batch so far, by the shape of a slice

    def run(self, outputs: Sequence[str], slices: np.ndarray) -> list[np.ndarray]:
        with self._lock:
            filled = self._filled(slices)
            return [result[: len(slices)] for result in self._run(outputs, filled)]

    def _filled(self, slices: np.ndarray) -> np.ndarray:
        """The slices with the last one repeated, up to the largest batch so far of at most `MAX_FILLED` slices."""
        largest = self._largest.get(slices.shape[1:], 0)
        if len(slices) <= self.MAX_FILLED:
            self._largest[slices.shape[1:]] = largest = max(largest, len(slices))
        missing = largest - len(slices)
        return slices if missing <= 0 else np.concatenate([slices, np.repeat(slices[-1:], missing, axis=0)])

    def _run(self, outputs: Sequence[str], slices: np.ndarray) -> list[np.ndarray]:
        try:
            binding, buffer, results, run_options = self._bound(outputs, slices)
            buffer.update_inplace(slices)
            with self._without_messages_of_a_choice(slices.shape):
                self._session.run_with_iobinding(binding, run_options)
            return [result.numpy() for result in results] if results else list(binding.copy_outputs_to_cpu())
        except Exception as error:
            raise self._failure(error) from error

    def _compute(self, outputs: Sequence[str], inputs: Mapping[str, np.ndarray], stop: Stop | None) -> list[np.ndarray]:
        """The named outputs for inputs on the host, without device buffers of its own."""
        with self._lock, self._without_messages_of_a_choice(*(value.shape for value in inputs.values())):
            return run_session(self._session, outputs, inputs, stop)

    def bound_call(self, outputs: Sequence[str], slices: np.ndarray) -> Callable[[], None]:
        """Return a call that runs the graph on these slices with all data on the device, and waits for its end."""
        with self._lock:
            self._run(outputs, slices)
            binding, _, _, run_options = self._bound(outputs, slices)

        def call() -> None:
            with self._lock:
                self._session.run_with_iobinding(binding, run_options)

        return call

    def _without_messages_of_a_choice(self, *shapes: tuple[int, ...]) -> contextlib.AbstractContextManager[None]:
        """Suppress cuDNN's messages in the first run of these input shapes, in which it chooses algorithms."""
        is_first = shapes not in self._shapes_run
        self._shapes_run.add(shapes)
        return without_cudnn_messages() if is_first else contextlib.nullcontext()

    def _bound(self, outputs: Sequence[str], slices: np.ndarray) -> Binding:
        """The binding for slices of this shape, made at their first run."""
        key = (tuple(outputs), slices.shape)
        if key not in self._bindings:
            if len(self._bindings) >= self.MAX_SHAPES:
                del self._bindings[next(k for k in self._bindings if k != self._captured)]
            self._bindings[key] = Binding(*self._new_binding(outputs, slices), self._run_options(key))
        return self._bindings[key]

    def _run_options(self, key: Key) -> "RunOptions":
        """CUDA graph 1 for the first shape (ONNX Runtime reserves 0), −1 (no CUDA graph) for others."""
        import onnxruntime

        options = onnxruntime.RunOptions()
        if self._cuda_graph:
            if self._captured is None and not any(name.startswith("attention_") for name in key[0]):
                self._captured = key
            options.add_run_config_entry("gpu_graph_id", "1" if key == self._captured else "-1")
        return options

    def _new_binding(self, outputs: Sequence[str], slices: np.ndarray) -> "tuple[IOBinding, OrtValue, list[OrtValue]]":
        """Bind buffers for the input and, unless attention maps are among them, for the outputs."""
        import onnxruntime

        binding = self._session.io_binding()
        buffer = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(slices), *self._device)
        binding.bind_ortvalue_input(INPUT, buffer)
        results = []
        for name in outputs:
            if name.startswith("attention_"):
                binding.bind_output(name, *self._device)
                continue
            n, (h, w) = slices.shape[0], slices.shape[2:]
            shape, dtype = ((n, h, w), np.uint8) if name == "labels" else ((n, self.outputs[name][1], h, w), np.float32)
            results.append(onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, *self._device))
            binding.bind_ortvalue_output(name, results[-1])
        return binding, buffer, results if len(results) == len(outputs) else []


def _open_device_session(data: bytes, provider: str, settings: dict[str, str], whole: bool) -> "InferenceSession":
    """A session with every node on the device, but for shapes in a whole artefact. RunError names what is missing."""
    import onnxruntime

    name = EXECUTION_PROVIDERS[provider]
    preload(provider)
    options = session_options()
    if not whole:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    onnxruntime.set_default_logger_severity(SILENT)  # it would print errors that are raised here
    try:
        with without_cudnn_messages():
            session = onnxruntime.InferenceSession(
                data,
                options,
                providers=[(name, settings)],
                enable_fallback=0,
                disabled_optimizers=DISABLED_OPTIMIZERS[provider],
            )
    except Exception as error:  # the library's exceptions share no other base
        if type(error).__name__ in ("InvalidGraph", "InvalidProtobuf"):
            raise refused_graph(error) from error
        check_libraries(provider)
        if "fallback to CPU EP" in str(error):
            raise RunError(
                f"provider: {provider} did not load, or can run only part of this graph: {one_line(error)}"
            ) from error
        raise RunError(f"provider: {provider} did not load; is there a device? {_reason(error)}") from error
    finally:
        onnxruntime.set_default_logger_severity(WARNINGS)
    if session.get_providers()[0] != name:
        check_libraries(provider)
        raise RunError(
            f"provider: {provider} did not load; ONNX Runtime offers {', '.join(session.get_providers())} here"
        )
    return session


def _reason(error: Exception) -> str:
    """The CUDA call's message, without ONNX Runtime's templates and file names around it."""
    match = re.search(r"\w+ failure \d+: [^;\n]*", str(error))
    return match[0].strip() if match else one_line(error)
