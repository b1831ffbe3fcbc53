"""ONNX Runtime's CPU provider, and what sessions of every provider share."""

import contextlib
import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from attunet.errors import InputError, RunError
from attunet.system.workers import usable_cores

INPUT = "slices"
SILENT, WARNINGS = 4, 2  # of ONNX Runtime's log levels: fatal errors alone, as what matters is raised; and its default

Shapes = dict[str, tuple[Any, ...]]  # of a graph's inputs or outputs by name; an axis of any length is a text or -1


class SessionBackend:
    """ONNX Runtime's CPU provider; its sessions may be run from several threads at once."""

    def __init__(self, data: bytes, num_threads: int | None) -> None:
        options = session_options()
        options.intra_op_num_threads = num_threads or _default_threads()
        # Threads that spin after a run would take the cores from whatever prepares and writes the other volumes.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = _open_session(data, options)
        self.inputs, self.outputs = shapes(self._session)
        self.options: dict[str, Any] = {"intra_op_num_threads": options.intra_op_num_threads, "force_spinning_stop": 1}

    def run(self, outputs: Sequence[str], slices: np.ndarray) -> list[np.ndarray]:
        try:
            return list(self._session.run(list(outputs), {INPUT: slices}))
        except Exception as error:
            raise failure("cpu", error) from error


def session_options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    return options


def _default_threads() -> int:
    """0 lets ONNX Runtime take a thread for every physical core; a process held to fewer CPUs takes those it may use."""
    return 0 if usable_cores() == os.cpu_count() else usable_cores()


def _open_session(data: bytes, options: Any) -> Any:
    """On the CPU."""
    import onnxruntime

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # the library's exceptions share no other base
        raise refused_graph(error) from error


def refused_graph(error: Exception) -> InputError:
    import onnxruntime

    return InputError(f"ONNX Runtime {onnxruntime.__version__} cannot load this graph: {one_line(error)}")


def shapes(session: Any) -> tuple[Shapes, Shapes]:
    inputs, outputs = ({value.name: tuple(value.shape) for value in values} for values in (session.get_inputs(), session.get_outputs()))
    return inputs, outputs


def failure(provider: str, error: Exception) -> RunError:
    return RunError(f"provider: {provider} failed while running: {one_line(error)}")


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
