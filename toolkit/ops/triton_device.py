"""The device that Triton kernels are launched on."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

INTERPRETED_MULTIPROCESSORS = 2


def num_multiprocessors(x: Tensor) -> int:
    """Multiprocessors of the GPU that x is on; a small number where kernels are interpreted."""
    if not x.is_cuda:
        return INTERPRETED_MULTIPROCESSORS
    return torch.cuda.get_device_properties(x.device).multi_processor_count


@contextmanager
def on_device_of(x: Tensor) -> Iterator[None]:
    """Makes x's device the current one, where Triton launches; autocast is off, so that products keep their dtype."""
    current = torch.cuda.device(x.device) if x.is_cuda else nullcontext()
    with torch.autocast(x.device.type, enabled=False), current:
        yield
