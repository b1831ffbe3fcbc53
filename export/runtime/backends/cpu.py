"""ONNX Runtime's CPU provider, and functions for sessions of every provider."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from attunet.errors import InputError, one_line
from attunet.export.runtime.backends.backend import Backend, Shapes
from attunet.export.runtime.stop import Stop
from attunet.system.workers import usable_cores

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

# A stranger's graph of some kilobytes can have constants that fill the memory while it is loaded
NOT_WHILE_LOADING = ["ConstantFolding"]
SILENT, WARNINGS = 4, 2  # ONNX Runtime's log levels: fatal errors alone, since other errors are raised; and its default


class SessionBackend(Backend):
    """ONNX Runtime's CPU provider."""

    provider = "cpu"

    def __init__(self, data: bytes, num_threads: int | None) -> None:
        import onnxruntime

        options = session_options()
        # ONNX Runtime's own default, 0, is a thread for each physical core of the machine, even where fewer are usable
        default = 0 if usable_cores() == os.cpu_count() else usable_cores()
        options.intra_op_num_threads = num_threads or default
        # Threads that spin after a run would take the cores from threads that read and write other volumes.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                data,
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=0,
                disabled_optimizers=NOT_WHILE_LOADING,
            )
        except Exception as error:  # the library's exceptions share no other base
            raise refused_graph(error) from error
        self.inputs, self.outputs = shapes(self._session)
        self.options = {"intra_op_num_threads": options.intra_op_num_threads, "force_spinning_stop": 1}

    def _compute(self, outputs: Sequence[str], inputs: Mapping[str, np.ndarray], stop: Stop | None) -> list[np.ndarray]:
        return run_session(self._session, outputs, inputs, stop)


def run_session(
    session: "InferenceSession", outputs: Sequence[str], inputs: Mapping[str, np.ndarray], stop: Stop | None
) -> list[np.ndarray]:
    """The named outputs of a session, which raises before its next node once `stop` is set."""
    if stop is None:
        return list(session.run(list(outputs), dict(inputs)))
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = SILENT
    with stop.calling(lambda: setattr(options, "terminate", True)):
        return list(session.run(list(outputs), dict(inputs), options))


def session_options() -> "SessionOptions":
    """Options of a session without log messages."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    return options


def refused_graph(error: Exception) -> InputError:
    """The error for a graph that this ONNX Runtime cannot load."""
    import onnxruntime

    return InputError(f"ONNX Runtime {onnxruntime.__version__} cannot load this graph: {one_line(error)}")


def shapes(session: "InferenceSession") -> tuple[Shapes, Shapes]:
    """Shapes of a session's inputs and of its outputs."""
    sides = (session.get_inputs(), session.get_outputs())
    inputs, outputs = ({value.name: tuple(value.shape) for value in side} for side in sides)
    return inputs, outputs
