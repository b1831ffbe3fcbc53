"""Who computes the graph: ONNX Runtime on a CPU, a GPU or TensorRT, or the openvino package; never another one than was asked for."""

import contextlib
import ctypes
import io
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from attunet.errors import InputError, RunError
from attunet.export.artefact import Artefact

PROVIDERS = ("cpu", "cuda", "tensorrt", "openvino")
INPUT = "slices"
SILENT = 4  # of ONNX Runtime's log levels: fatal errors alone; what matters is raised


Shapes = dict[str, tuple[Any, ...]]  # of a graph's inputs or outputs by name; an axis of any length is a text or -1


class Backend(Protocol):
    """One loaded graph. `options` are what was really asked of the library, for the environment of a result."""

    options: dict[str, Any]
    inputs: Shapes
    outputs: Shapes

    def run(self, outputs: Sequence[str], slices: np.ndarray) -> list[np.ndarray]:
        """The named outputs for float32 slices (N, C, H, W); may be called from several threads."""


def open_backend(data: bytes, artefact: Artefact, provider: str, *, num_threads: int | None = None, cuda_graph: bool = False) -> Backend:
    """Loads the graph. InputError for an unknown provider or one that cannot run this artefact; RunError for one that is not there."""
    if provider not in PROVIDERS:
        raise InputError(f"provider: must be one of {', '.join(PROVIDERS)}, got {provider!r}")
    if num_threads is not None and not 1 <= num_threads <= 4096:
        raise InputError(f"num_threads: must be from 1 to 4096, got {num_threads}")
    if cuda_graph and provider != "cuda":
        raise InputError(f"cuda_graph: needs the provider cuda, got {provider}")
    if artefact.precision == "int8" and provider in ("cuda", "tensorrt"):
        raise InputError(f"provider: an int8 artefact runs on cpu or openvino, got {provider}; export fp16 for GPUs")
    backend: Backend
    if provider == "openvino":
        backend = OpenVinoBackend(data, artefact.precision, num_threads)
    elif provider == "cpu":
        backend = SessionBackend(data, num_threads)
    else:
        backend = DeviceBackend(data, provider, artefact.precision, cuda_graph)
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


class SessionBackend:
    """ONNX Runtime's CPU provider; its sessions may be run from several threads at once."""

    def __init__(self, data: bytes, num_threads: int | None) -> None:
        options = _session_options()
        options.intra_op_num_threads = num_threads or _default_threads()
        # Threads that spin after a run would take the cores from whatever prepares and writes the other volumes.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = _open_session(data, options, ["CPUExecutionProvider"])
        self.inputs, self.outputs = _shapes(self._session)
        self.options: dict[str, Any] = {"intra_op_num_threads": options.intra_op_num_threads, "force_spinning_stop": 1}

    def run(self, outputs: Sequence[str], slices: np.ndarray) -> list[np.ndarray]:
        try:
            return list(self._session.run(list(outputs), {INPUT: slices}))
        except Exception as error:
            raise _failure("cpu", error) from error


class DeviceBackend:
    """ONNX Runtime on a GPU, with input and outputs bound to device buffers that are made once for every batch shape.

    One run at a time: the buffers are shared. With `cuda_graph` the first shape is captured and other shapes run without the graph.
    """

    MAX_SHAPES = 8  # buffers kept; a volume needs one shape, and one more for its last batch

    def __init__(self, data: bytes, provider: str, precision: str, cuda_graph: bool = False) -> None:
        check_library(provider)
        self.options = _device_options(provider, precision, cuda_graph)
        name = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}[provider]
        options = _session_options()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        session = _open_session(data, options, [(name, {k: str(v) for k, v in self.options.items()})])
        if session.get_providers()[0] != name:
            raise RunError(f"provider: {provider} did not load; ONNX Runtime offers {', '.join(session.get_providers())} here")
        self._bind(session, provider, "cuda", cuda_graph)

    def _bind(self, session: Any, provider: str, device: str, cuda_graph: bool) -> None:
        self._session, self._provider, self._device, self._cuda_graph = session, provider, device, cuda_graph
        self.inputs, self.outputs = _shapes(session)
        self._lock = threading.Lock()
        self._bindings: dict[tuple[Any, ...], tuple[Any, Any, list[Any]]] = {}
        self._captured: tuple[Any, ...] | None = None

    def run(self, outputs: Sequence[str], slices: np.ndarray) -> list[np.ndarray]:
        with self._lock:
            try:
                binding, buffer, results, run_options = self._bound(outputs, slices)
                buffer.update_inplace(slices)
                self._session.run_with_iobinding(binding, run_options)
                return [result.numpy() for result in results] if results else list(binding.copy_outputs_to_cpu())
            except Exception as error:
                raise _failure(self._provider, error) from error

    def bound_call(self, outputs: Sequence[str], slices: np.ndarray) -> Callable[[], None]:
        """A call that runs these slices again with input and outputs on the device, and is finished when it returns: the graph alone."""
        self.run(outputs, slices)
        binding, _, _, run_options = self._bound(outputs, slices)

        def call() -> None:
            with self._lock:
                self._session.run_with_iobinding(binding, run_options)

        return call

    def _bound(self, outputs: Sequence[str], slices: np.ndarray) -> tuple[Any, Any, list[Any], Any]:
        """The binding for slices of this shape, its input buffer, its output buffers, and the options to run it with."""
        import onnxruntime

        key = (tuple(outputs), slices.shape)
        if key not in self._bindings:
            if len(self._bindings) >= self.MAX_SHAPES:
                oldest = next(k for k in self._bindings if k != self._captured)
                del self._bindings[oldest]
            self._bindings[key] = self._new_binding(outputs, slices)
        run_options = onnxruntime.RunOptions()
        if self._cuda_graph:
            self._captured = self._captured or key
            run_options.add_run_config_entry("gpu_graph_id", "0" if key == self._captured else "-1")
        return *self._bindings[key], run_options

    def _new_binding(self, outputs: Sequence[str], slices: np.ndarray) -> tuple[Any, Any, list[Any]]:
        """Binds the input's buffer, and the outputs' where their shapes follow from the input's (labels and scores do)."""
        import onnxruntime

        binding = self._session.io_binding()
        buffer = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(slices), self._device, 0)
        binding.bind_ortvalue_input(INPUT, buffer)
        results = []
        for name in outputs:
            if name.startswith("attention_"):
                binding.bind_output(name, self._device)
                continue
            n, (h, w) = slices.shape[0], slices.shape[2:]
            shape, dtype = ((n, h, w), np.uint8) if name == "labels" else ((n, self.outputs[name][1], h, w), np.float32)
            results.append(onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, self._device, 0))
            binding.bind_ortvalue_output(name, results[-1])
        return binding, buffer, results if len(results) == len(outputs) else []


class OpenVinoBackend:
    """The openvino package on the CPU, an extra; an infer request is made for every call, so calls may overlap."""

    def __init__(self, data: bytes, precision: str, num_threads: int | None) -> None:
        try:
            import openvino
        except ImportError as error:
            raise RunError(f"provider: openvino needs the openvino package (pip install attunet[openvino]): {error}") from None
        self.options = {"PERFORMANCE_HINT": "LATENCY", **({"INFERENCE_NUM_THREADS": num_threads} if num_threads else {})}
        if precision != "fp16":
            self.options["INFERENCE_PRECISION_HINT"] = "f32"  # its own choice is bf16 where the CPU has it
        try:
            core = openvino.Core()
            self._model = core.compile_model(core.read_model(io.BytesIO(data)), "CPU", self.options)
        except Exception as error:
            raise InputError(f"openvino cannot load this graph: {_one_line(error)}") from error
        self.inputs, self.outputs = _port_shapes(self._model.inputs), _port_shapes(self._model.outputs)

    def run(self, outputs: Sequence[str], slices: np.ndarray) -> list[np.ndarray]:
        try:
            results = self._model.create_infer_request().infer({INPUT: slices})
            return [np.array(results[name]) for name in outputs]
        except Exception as error:
            raise _failure("openvino", error) from error


def check_library(provider: str) -> None:
    """RunError naming the library that is missing, before ONNX Runtime falls back to the CPU on its own."""
    import onnxruntime

    wheel = "onnxruntime-gpu" if provider == "cuda" else "onnxruntime-gpu and tensorrt"
    name = f"libonnxruntime_providers_{provider}.so"
    library = Path(onnxruntime.__file__).parent / "capi" / name
    if os.name == "posix" and not library.exists():
        raise RunError(f"provider: {provider} needs {wheel}; the onnxruntime {onnxruntime.__version__} installed here is built without it")
    with contextlib.redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()  # CUDA and cuDNN from the nvidia wheels or from torch; says on stdout what it did not find
    try:
        ctypes.CDLL(str(library.with_name("libonnxruntime_providers_shared.so")))
        ctypes.CDLL(str(library))
    except OSError as error:
        raise RunError(f"provider: {provider} did not load, a library of its is missing: {_one_line(error)}") from None


def _device_options(provider: str, precision: str, cuda_graph: bool) -> dict[str, Any]:
    if provider == "cuda":
        return {
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "cudnn_conv_use_max_workspace": 1,
            "prefer_nhwc": int(precision == "fp16"),  # tensor cores want channels last
            "use_tf32": 0,  # fp32 means fp32, as at the export
            "enable_cuda_graph": int(cuda_graph),
        }
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "attunet" / "tensorrt"
    return {"trt_engine_cache_enable": 1, "trt_engine_cache_path": cache, "trt_fp16_enable": int(precision == "fp16")}


def _session_options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    return options


def _default_threads() -> int:
    """0 lets ONNX Runtime take a thread for every physical core; a process held to fewer CPUs takes those it may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if allowed == os.cpu_count() else allowed


def _open_session(data: bytes, options: Any, providers: list[Any]) -> Any:
    import onnxruntime

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its notes on falling back, which is refused here
            return onnxruntime.InferenceSession(data, options, providers=providers)
    except Exception as error:  # the library's exceptions share no other base
        if "fallback to CPU EP" in str(error) or "also disabled fallback" in str(error):
            name = providers[0][0].removesuffix("ExecutionProvider").lower()
            raise RunError(
                f"provider: {name} did not load or can run only part of this graph; is there a device? {_one_line(error)}"
            ) from error
        raise InputError(f"ONNX Runtime {onnxruntime.__version__} cannot load this graph: {_one_line(error)}") from error


def _shapes(session: Any) -> tuple[Shapes, Shapes]:
    inputs, outputs = ({value.name: tuple(value.shape) for value in values} for values in (session.get_inputs(), session.get_outputs()))
    return inputs, outputs


def _port_shapes(ports: Any) -> Shapes:
    """openvino keeps several names for a port behind a cast; the one that the file gives it has no `graph_` added."""
    shapes = {}
    for port in ports:
        shape = tuple(axis.get_length() if axis.is_static else -1 for axis in port.get_partial_shape())
        names = sorted(port.get_names(), key=lambda name: (name.startswith("graph_"), name))
        shapes[names[0]] = shape
    return shapes


def _failure(provider: str, error: Exception) -> RunError:
    return RunError(f"provider: {provider} failed while running: {_one_line(error)}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
