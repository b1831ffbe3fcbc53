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


def test_cudnns_messages_are_dropped_in_the_first_run_of_a_shape_alone(
    graph: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
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
    for height in (32, 16):
        bound.run(("logits",), slices[:, :, :height])
    assert capfd.readouterr().err == ""
    bound.run(("logits",), slices)
    assert "cudnn_frontend" in capfd.readouterr().err


def test_batches_are_filled_up_to_the_largest_so_far(graph: bytes) -> None:
    """A device sees one shape, and every slice has the answer that it has alone."""
    plain = SessionBackend(graph, 1)
    bound = DeviceBackend.__new__(DeviceBackend)
    bound._bind(plain._session, "cuda", "cpu", cuda_graph=False)
    slices = np.random.default_rng(0).standard_normal((40, 1, 32, 32), dtype=np.float32)
    names = ("labels", "logits", "attention_0")
    expected = plain.run(names, slices)
    for size, shape in ((2, 2), (8, 8), (5, 8), (1, 8), (40, 40), (3, 8)):
        given = slices[:size].copy()  # a buffer on the CPU is the array itself
        for got, right in zip(bound.run(names, given), expected, strict=True):
            assert len(got) == size
            np.testing.assert_allclose(got, right[:size], rtol=1e-4, atol=1e-5)
        assert (names, (shape, 1, 32, 32)) in bound._bindings
    assert {key[1][0] for key in bound._bindings} == {2, 8, 40}
    other = slices[:2, :, :16]
    np.testing.assert_allclose(bound.run(("logits",), other)[0], plain.run(("logits",), other)[0], rtol=1e-4, atol=1e-5)
    assert (("logits",), (2, 1, 16, 32)) in bound._bindings
