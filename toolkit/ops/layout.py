"""Memory layouts of (N, C, H, W) tensors: every backend answers in the layout that it was asked in."""

import torch
from torch import Tensor


def is_channels_last(*tensors: Tensor) -> bool:
    """True where all are channels-last; with a single channel or pixel, which is both at once, only if the others decide it."""
    return all(t.is_contiguous(memory_format=torch.channels_last) for t in tensors) and not all(t.is_contiguous() for t in tensors)


def empty_result(x: Tensor, g: Tensor, channels: int) -> Tensor:
    """An empty (N, channels, H, W): channels-last where both inputs are, contiguous otherwise."""
    layout = torch.channels_last if is_channels_last(x, g) else torch.contiguous_format
    return torch.empty((x.shape[0], channels, *x.shape[2:]), dtype=x.dtype, device=x.device, memory_format=layout)


def empty_alpha(x: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], 1, *x.shape[2:]))
