"""The openvino package as a backend."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from attunet.errors import InputError, RunError, one_line
from attunet.export.runtime.backends.backend import Backend, Shapes
from attunet.export.runtime.stop import Stop

if TYPE_CHECKING:
    from openvino import ConstOutput


class OpenVinoBackend(Backend):
    """The openvino package on the CPU. Each call has its own infer request, so calls may overlap."""

    provider = "openvino"

    def __init__(
        self, data: bytes, precision: str, num_threads: int | None, provider_options: Mapping[str, object] | None
    ) -> None:
        try:
            import openvino
        except ImportError as error:
            raise RunError(
                f"provider: openvino needs the openvino package (pip install attunet[openvino]): {error}"
            ) from None
        self.options = {"PERFORMANCE_HINT": "LATENCY"}
        if num_threads:
            self.options["INFERENCE_NUM_THREADS"] = num_threads
        if precision != "fp16":
            # By default OpenVINO computes in bf16 on CPUs that have it
            self.options["INFERENCE_PRECISION_HINT"] = "f32"
        self.options |= provider_options or {}
        try:
            core = openvino.Core()
            self._model = core.compile_model(core.read_model(io.BytesIO(data)), "CPU", self.options)
        except Exception as error:
            raise InputError(f"openvino cannot load this graph: {one_line(error)}") from error
        for name in (*self.options, "INFERENCE_NUM_THREADS", "NUM_STREAMS"):
            self.options[name] = _plain(self._model.get_property(name))
        self.inputs, self.outputs = _port_shapes(self._model.inputs), _port_shapes(self._model.outputs)

    def _compute(self, outputs: Sequence[str], inputs: Mapping[str, np.ndarray], stop: Stop | None) -> list[np.ndarray]:
        request = self._model.create_infer_request()
        if stop is None:
            request.infer(dict(inputs))
        else:
            request.start_async(dict(inputs))
            with stop.calling(request.cancel):
                request.wait()
        return [np.array(request.get_tensor(name).data) for name in outputs]


def _plain(value: object) -> int | float | str:
    """A property as a JSON value; some of OpenVINO's properties have types of its own."""
    if isinstance(value, int | float | str):
        return value
    return value.to_string() if hasattr(value, "to_string") else str(value)


def _port_shapes(ports: "Sequence[ConstOutput]") -> Shapes:
    """Shapes by the names in the file. After a cast a port has several names; OpenVINO's own begin with `graph_`."""
    shapes = {}
    for port in ports:
        shape = tuple(axis.get_length() if axis.is_static else -1 for axis in port.get_partial_shape())
        names = sorted(port.get_names(), key=lambda name: (name.startswith("graph_"), name))
        shapes[names[0]] = shape
    return shapes
