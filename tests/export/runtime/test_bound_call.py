"""The call that times a graph alone runs it, on the buffers that are bound already."""

import os
from typing import Any

import numpy as np
import pytest

from attunet.export.runtime.cpu import SessionBackend
from attunet.export.runtime.gpu import DeviceBackend


def test_bound_call_runs_the_graph_again(graph: bytes) -> None:
    plain = SessionBackend(graph, 1)
    bound = DeviceBackend.__new__(DeviceBackend)
    bound._bind(plain._session, "cuda", "cpu", cuda_graph=False)
    slices = np.random.default_rng(0).standard_normal((2, 1, 32, 32), dtype=np.float32)
    call = bound.bound_call(("logits",), slices)
    _, _, (result,), _ = bound._bound(("logits",), slices)
    result.update_inplace(np.zeros_like(result.numpy()))
    call()
    np.testing.assert_array_equal(result.numpy(), plain.run(("logits",), slices)[0])


def test_cudnns_messages_are_dropped_in_the_first_run_of_a_shape_alone(graph: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    class Talkative:
        """A session that writes what cuDNN's front end writes, at every run."""

        def __init__(self, session: Any) -> None:
            self.session = session

        def __getattr__(self, name: str) -> Any:
            return getattr(self.session, name)

        def run_with_iobinding(self, *arguments: Any) -> None:
            os.write(2, b"[cudnn_frontend] Error: No execution plans support the graph.\n")
            self.session.run_with_iobinding(*arguments)

    bound = DeviceBackend.__new__(DeviceBackend)
    bound._bind(Talkative(SessionBackend(graph, 1)._session), "cuda", "cpu", cuda_graph=False)
    slices = np.zeros((2, 1, 32, 32), np.float32)
    for size in (2, 1):
        bound.run(("logits",), slices[:size])
    assert capfd.readouterr().err == ""
    bound.run(("logits",), slices)
    assert "cudnn_frontend" in capfd.readouterr().err
