"""The device that Triton kernels are launched on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

INTERPRETED_MULTIPROCESSORS = 2


def num_multiprocessors(x: Tensor) -> int:
    """Multiprocessors of the GPU that x is on; a small number where kernels are interpreted."""
    return (
        torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else INTERPRETED_MULTIPROCESSORS
    )


@contextmanager
def on_device_of(x: Tensor) -> Iterator[None]:
    """Triton launches on the current device, so that is set to x's;
    autocast is off, so that products keep their inputs' dtype.
    """
    with torch.autocast(x.device.type, enabled=False):
        if x.is_cuda:
            with torch.cuda.device(x.device):
                yield
        else:
            yield
