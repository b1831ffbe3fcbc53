"""Buffers that are bound to a session, as on a GPU."""

import os
from typing import Any

import numpy as np
import pytest

from attunet.export.runtime.backends.cpu import SessionBackend
from attunet.export.runtime.backends.gpu import DeviceBackend


def bound_on_cpu(session: Any) -> DeviceBackend:
    """A session with buffers as on a GPU, in the CPU's memory."""
    backend = DeviceBackend.__new__(DeviceBackend)
    backend._bind(session, "cuda", "cpu", cuda_graph=False)
    return backend


def test_bound_call_runs_the_graph_again(graph: bytes) -> None:
    plain = SessionBackend(graph, 1)
    bound = bound_on_cpu(plain._session)
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

    bound = bound_on_cpu(Talkative(SessionBackend(graph, 1)._session))
    slices = np.zeros((2, 1, 32, 32), np.float32)
    for height in (32, 16):
        bound.run(("logits",), slices[:, :, :height])
    assert capfd.readouterr().err == ""
    bound.run(("logits",), slices)
    assert "cudnn_frontend" in capfd.readouterr().err


def test_batches_are_filled_up_to_the_largest_so_far(graph: bytes) -> None:
    """A device sees one shape, and every slice has the answer that it has alone."""
    plain = SessionBackend(graph, 1)
    bound = bound_on_cpu(plain._session)
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


def test_bound_buffers_give_what_a_plain_session_gives(graph: bytes) -> None:
    """Buffers as on a GPU, in the CPU's memory: kept for a shape, and never with the result of an earlier call."""
    plain = SessionBackend(graph, 1)
    bound = bound_on_cpu(plain._session)
    shapes = [(2, 1, 32, 32), (2, 1, 32, 32), (1, 1, 16, 48), (2, 1, 32, 32), *((n, 1, 16, 16) for n in range(1, 12))]
    for seed, shape in enumerate(shapes):
        slices = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
        for outputs in (("logits", "labels"), ("attention_0", "logits")):
            for one, other in zip(bound.run(outputs, slices), plain.run(outputs, slices), strict=True):
                np.testing.assert_array_equal(one, other)
    assert len(bound._bindings) <= DeviceBackend.MAX_SHAPES
