"""The attention gate on the CPU, a block of pixels at a time.

Every intermediate of a block stays in the cache, and the backward pass computes the hidden features again from x and g,
so that nothing of the size of the image is written besides the results, and nothing but the inputs is kept.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK_VALUES = 2**18  # numbers of x and g in a block: a megabyte in float32, about the second-level cache of a core


def forward(
    x: Tensor, g: Tensor, weight_x: Tensor, weight_g: Tensor, bias: Tensor, psi_weight: Tensor, psi_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """The tensors of `attention_gate`; returns out (N, C + G, H, W) and alpha (N, 1, H, W)."""
    out = empty_like_layout(x, x.shape[1] + g.shape[1])
    alpha = x.new_empty((x.shape[0], 1, *x.shape[2:]))
    channels = x.shape[1]
    with torch.autocast("cpu", enabled=False):
        weights = [p.to(x.dtype) for p in (weight_x.T, weight_g.T, bias, psi_weight, psi_bias)]
        for rows_x, rows_g, rows_out, rows_alpha in pixel_blocks(x, g, out, alpha):
            _, block_alpha = _gate(rows_x, rows_g, *weights)
            rows_alpha.copy_(block_alpha)
            torch.mul(rows_x, block_alpha, out=rows_out[:, :channels])
            rows_out[:, channels:].copy_(rows_g)
    return out, alpha


def backward(
    grad_out: Tensor,
    grad_alpha: Tensor,
    x: Tensor,
    g: Tensor,
    weight_x: Tensor,
    weight_g: Tensor,
    bias: Tensor,
    psi_weight: Tensor,
    psi_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the seven inputs; those of parameters are summed over blocks in float32 or better, always in the same order."""
    channels = x.shape[1]
    grad_x, grad_g = empty_like_layout(x, channels), empty_like_layout(x, g.shape[1])
    parameters = (weight_x, weight_g, bias, psi_weight, psi_bias)
    sums = [torch.zeros_like(p, dtype=torch.promote_types(x.dtype, torch.float32)) for p in parameters]
    with torch.autocast("cpu", enabled=False):
        w_x, w_g, b, psi, b_psi = (p.to(x.dtype) for p in parameters)
        for rows_x, rows_g, rows_out, rows_alpha, rows_grad_x, rows_grad_g in pixel_blocks(x, g, grad_out, grad_alpha, grad_x, grad_g):
            hidden, alpha = _gate(rows_x, rows_g, w_x.T, w_g.T, b, psi, b_psi)
            grad_gated, grad_copied = rows_out[:, :channels], rows_out[:, channels:]
            grad_logit = ((grad_gated * rows_x).sum(1, keepdim=True) + rows_alpha) * alpha * (1 - alpha)
            grad_hidden = (grad_logit * psi).mul_(hidden > 0)
            rows_grad_x.copy_(torch.addmm(grad_gated * alpha, grad_hidden, w_x))
            rows_grad_g.copy_(torch.addmm(grad_copied, grad_hidden, w_g))
            products = (grad_hidden.T @ rows_x, grad_hidden.T @ rows_g, grad_hidden.sum(0), (grad_logit.T @ hidden)[0], grad_logit.sum(0))
            for total, product in zip(sums, products, strict=True):
                total += product
    return grad_x, grad_g, *(s.to(p.dtype) for s, p in zip(sums, parameters, strict=True))  # type: ignore[return-value]


def _gate(x: Tensor, g: Tensor, w_x: Tensor, w_g: Tensor, bias: Tensor, psi: Tensor, psi_bias: Tensor) -> tuple[Tensor, Tensor]:
    """x (P, C), g (P, G), w_x (C, F), w_g (G, F) -> hidden (P, F) after ReLU, alpha (P, 1)."""
    hidden = torch.addmm(bias, x, w_x).addmm_(g, w_g).relu_()
    return hidden, torch.addmm(psi_bias, hidden, psi[:, None]).sigmoid_()


def empty_like_layout(x: Tensor, channels: int) -> Tensor:
    """An empty (N, channels, H, W) in the memory format of x."""
    layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return torch.empty((x.shape[0], channels, *x.shape[2:]), dtype=x.dtype, device=x.device, memory_format=layout)


def is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def pixel_blocks(*tensors: Tensor) -> Iterator[list[Tensor]]:
    """Views (pixels, channels) of the same pixels of every (N, channels, H, W) tensor, block by block."""
    if all(t.is_contiguous(memory_format=torch.channels_last) for t in tensors):
        images = [[t.permute(0, 2, 3, 1).flatten(0, 2) for t in tensors]]
    else:
        images = [[t[n].flatten(1).T for t in tensors] for n in range(tensors[0].shape[0])]
    size = max(64, BLOCK_VALUES // (tensors[0].shape[1] + tensors[1].shape[1]))
    for image in images:
        for start in range(0, image[0].shape[0], size):
            yield [rows[start : start + size] for rows in image]
