"""The attention gate on the CPU, a block of pixels at a time.

For pixel p, with hidden channels f:

    h_p     = W_x x_p + W_g g_p + b
    z_p     = psi . relu(h_p) + b_psi
    alpha_p = sigmoid(z_p)
    out_p   = concat(alpha_p x_p, g_p)

and backward, with a_p the gradient of alpha_p (from out: grad_out_x . x_p; and from alpha itself), and [h_p > 0] the
ReLU's mask:

    dz_p    = a_p alpha_p (1 - alpha_p)
    r_p     = dz_p [h_p > 0]                    the gradient of h_p without its factor psi
    dx_p    = alpha_p grad_out_x + r_p (psi W_x)
    dg_p    = grad_out_g + r_p (psi W_g)
    dW_x    = psi sum_p r_p x_p^T               dW_g likewise with g_p, db with 1
    dpsi    = sum_p dz_p relu(h_p) = W_x . sum_p r_p x_p + W_g . sum_p r_p g_p + b sum_p r_p
    db_psi  = sum_p dz_p

The intermediates of a block stay in the cache; the backward pass computes h again, so only the inputs are saved.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from attunet.ops.gate.reference import GateParameters
from attunet.ops.memory_format import empty_alpha, empty_result

sigmoid_backward = torch.ops.aten.sigmoid_backward.default
threshold_backward = torch.ops.aten.threshold_backward.default

# Bytes of x and g in a block, for each number of bytes per value: small blocks stay in the cache, large ones make fewer
# calls, which matters more in 16 bits, where arithmetic is faster.
BLOCK_BYTES = {2: 2**24, 4: 2**23, 8: 2**23}


def forward(x: Tensor, g: Tensor, parameters: GateParameters) -> tuple[Tensor, Tensor]:
    """Returns out (N, C + G, H, W) and alpha (N, 1, H, W)."""
    channels = x.shape[1]
    out, alpha = empty_result(x, g, channels + g.shape[1]), empty_alpha(x)
    with torch.autocast("cpu", enabled=False):
        rounded = _rounded(parameters, x.dtype)
        for rows_x, rows_g, rows_out, rows_alpha in pixel_blocks(x, g, out, alpha):
            _, block_alpha = _gate(rows_x, rows_g, rounded)
            rows_alpha.copy_(block_alpha)
            gated, copied = rows_out.tensor_split((channels,), dim=1)
            torch.mul(rows_x, _spread(block_alpha, rows_x), out=gated)
            copied.copy_(rows_g)
    return out, alpha


def backward(
    grad_out: Tensor, grad_alpha: Tensor | None, x: Tensor, g: Tensor, parameters: GateParameters
) -> tuple[Tensor, Tensor, GateParameters]:
    """Returns the gradients of x, g and the parameters; the last are summed in float32 or better, in a fixed order.

    Example:
        >>> grad_x, grad_g, gradients = backward(torch.ones_like(out), None, x, g, parameters)  # doctest: +SKIP
    """
    channels, dtype = x.shape[1], torch.promote_types(x.dtype, torch.float32)
    grad_x, grad_g = empty_result(x, g, channels), empty_result(x, g, g.shape[1])
    sums: list[Tensor] = []  # over pixels: r x^T (F, C), r g^T (F, G), r (F,), dz (1,)
    with torch.autocast("cpu", enabled=False):
        w_x, w_g, b, psi, _ = rounded = _rounded(parameters, x.dtype)
        back_x, back_g = psi[:, None] * w_x, psi[:, None] * w_g
        ones = x.new_ones((1, channels))
        tensors = (x, g, grad_out, grad_x, grad_g, *(() if grad_alpha is None else (grad_alpha,)))
        for rows_x, rows_g, rows_out, rows_grad_x, rows_grad_g, *rows_alpha in pixel_blocks(*tensors):
            hidden, alpha = _gate(rows_x, rows_g, rounded)
            grad_gated, grad_copied = rows_out.tensor_split((channels,), dim=1)
            product = torch.mul(grad_gated, rows_x, out=rows_grad_x)
            from_out = product @ ones.T if _is_short(product) else product.sum(1, keepdim=True)
            grad_logit = sigmoid_backward(sum(rows_alpha, start=from_out), alpha)
            reached = threshold_backward(_spread(grad_logit, hidden), hidden, 0)
            torch.mul(grad_gated, _spread(alpha, rows_x), out=rows_grad_x).addmm_(reached, back_x)
            rows_grad_g.copy_(grad_copied).addmm_(reached, back_g)
            # Sums over many pixels exceed the largest float16
            summed = reached.float() if x.dtype == torch.float16 else reached
            of_weights = _over_pixels(summed, rows_x), _over_pixels(summed, rows_g)
            parts = (*of_weights, summed.sum(0), grad_logit.sum(0, dtype=dtype))
            sums = [t + p for t, p in zip(sums, parts, strict=True)] if sums else [p.to(dtype) for p in parts]
        shapes = (parameters.weight_x, parameters.weight_g, parameters.bias, parameters.psi_bias)
        sum_x, sum_g, sum_one, grad_psi_bias = sums or [torch.zeros(p.shape, dtype=dtype) for p in shapes]
        grad_psi = (w_x * sum_x).sum(1) + (w_g * sum_g).sum(1) + b * sum_one
        gradients = (sum_x.mul_(psi[:, None]), sum_g.mul_(psi[:, None]), sum_one.mul_(psi), grad_psi, grad_psi_bias)
    return grad_x, grad_g, GateParameters(*(v.to(p.dtype) for v, p in zip(gradients, parameters, strict=True)))


def _rounded(parameters: GateParameters, dtype: torch.dtype) -> GateParameters:
    return GateParameters(*(p.to(dtype) for p in parameters))


def _over_pixels(left: Tensor, right: Tensor) -> Tensor:
    """left (P, F), right (P, C) -> left.T @ right (F, C) in float32 or better; each thread has its share of pixels."""
    threads = torch.get_num_threads()
    parts = threads if left.shape[0] % threads == 0 else 1
    products = torch.bmm(left.view(parts, -1, left.shape[1]).mT, right.to(left.dtype).view(parts, -1, right.shape[1]))
    return products.sum(0, dtype=torch.promote_types(left.dtype, torch.float32))


def _gate(x: Tensor, g: Tensor, parameters: GateParameters) -> tuple[Tensor, Tensor]:
    """x (P, C), g (P, G) -> relu(h) (P, F) and alpha (P, 1)."""
    w_x, w_g, bias, psi, psi_bias = parameters
    hidden = torch.addmm(bias, x, w_x.T) if _is_row_major(x) else torch.addmm(bias[:, None], w_x, x.T).T
    hidden.addmm_(g, w_g.T).relu_()
    return hidden, torch.addmm(psi_bias, hidden, psi[:, None]).sigmoid_()


def _spread(alpha: Tensor, rows: Tensor) -> Tensor:
    """alpha (P, 1), ready to be multiplied with rows (P, C); torch is slow when it broadcasts along short rows."""
    if not _is_short(rows):
        return alpha
    ones = alpha.new_ones((1, rows.shape[1]))  # a product of matrices, in the memory order of the rows
    return alpha @ ones if _is_row_major(rows) else (ones.T @ alpha.T).T


def _is_short(rows: Tensor) -> bool:
    return rows.shape[1] * rows.element_size() < 64


def _is_row_major(rows: Tensor) -> bool:
    """False for an NCHW block, a transposed view: reading one order while writing the other is slow."""
    return rows.stride(1) == 1


def pixel_blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views (pixels, channels) of the same pixels of every (N, channels, H, W) tensor, block by block."""
    if all(t.is_contiguous(memory_format=torch.channels_last) for t in tensors):
        images = [[t.permute(0, 2, 3, 1).flatten(0, 2) for t in tensors]]
    else:
        images = [[t[n].flatten(1).T for t in tensors] for n in range(tensors[0].shape[0])]
    x, g = tensors[:2]
    size = max(64, BLOCK_BYTES[x.element_size()] // (x.element_size() * (x.shape[1] + g.shape[1])))
    for image in images:
        full, rest = divmod(len(image[0]), size)
        sizes = [size] * full + [rest] * (rest > 0)
        yield from zip(*(rows.split_with_sizes(sizes) for rows in image), strict=True)
