"""Memory formats of (N, C, H, W) tensors: every backend returns the memory format of its input."""

import torch
from torch import Tensor


def is_channels_last(*tensors: Tensor) -> bool:
    """True if all are channels-last and one is not contiguous too, as tensors of one channel or one pixel are."""
    return all(t.is_contiguous(memory_format=torch.channels_last) for t in tensors) and not all(
        t.is_contiguous() for t in tensors
    )


def in_memory_format(x: Tensor, memory_format: torch.memory_format) -> Tensor:
    """x (N, C, H, W) in a memory format that shows in its strides even if it has one channel.

    Such a tensor is contiguous and channels-last at once, and torch's convolutions take it for contiguous: then they
    copy the gradient of the first convolution's result to that format and back, 5 % of a training step on an H200.
    """
    x = x.contiguous(memory_format=memory_format)
    if memory_format == torch.channels_last and x.dim() == 4 and x.shape[1] == 1:
        return x.view(x.shape[0], *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x


def empty_result(x: Tensor, g: Tensor, channels: int) -> Tensor:
    """An empty (N, channels, H, W): channels-last if both inputs are, contiguous otherwise."""
    memory_format = torch.channels_last if is_channels_last(x, g) else torch.contiguous_format
    return torch.empty(
        (x.shape[0], channels, *x.shape[2:]), dtype=x.dtype, device=x.device, memory_format=memory_format
    )


def empty_alpha(x: Tensor) -> Tensor:
    """An empty (N, 1, H, W) of x's dtype and device."""
    return x.new_empty((x.shape[0], 1, *x.shape[2:]))


def as_rows(x: Tensor) -> Tensor:
    """(N, C, H, W) as contiguous rows (N * H * W, C): a view of a channels-last tensor, a copy of any other."""
    return x.permute(0, 2, 3, 1).flatten(0, 2).contiguous()


def copy_rows(rows: Tensor, image: Tensor) -> None:
    """Copies rows (N * H * W, C) into the (N, C, H, W) that they belong to, unless they are a view of it."""
    if rows.data_ptr() != image.data_ptr():
        image.copy_(rows.view(image.shape[0], *image.shape[2:], image.shape[1]).permute(0, 3, 1, 2))
