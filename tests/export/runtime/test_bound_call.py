"""The call that times a graph alone runs it, on the buffers that are bound already."""

import numpy as np

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
