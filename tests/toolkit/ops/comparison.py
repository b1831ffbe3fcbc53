"""Comparison of a result with its value in float64, and the memory that autograd keeps, for the tests of operations."""

from collections.abc import Callable

import torch
from torch import Tensor


def saved_bytes(call: Callable[[], object]) -> int:
    """The bytes that autograd saves in a call for its backward pass."""
    saved: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        kept = call()
    del kept
    return sum(saved.values())


def assert_near(name: str, got: Tensor, exact: Tensor, tolerance: float) -> Tensor:
    """Compares a result with its float64 value in the norm, and returns the error."""
    assert got.shape == exact.shape
    error = got.cpu().double() - exact
    bound = tolerance * exact.norm() + 1e-7
    assert error.norm() <= bound, f"{name}: relative error {error.norm() / exact.norm():.1e}"
    return error
