# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, assignment"
# Kernel arguments have types only at compile time.
"""Triton kernels of wide gates in 16 bits: channels are streamed through shared memory, as in a matrix product.

Tensors are rows of channels (channels-last): x (P, C), g (P, G), out (P, C + G). A tile is BLOCK_P rows. The first loop
over the channels accumulates all BLOCK_F hidden features, loading ahead; alpha follows; the second loop reads x and g
again, now from the cache, and writes. So the large tensors cross the memory once, and a tile of 128 rows reads the
weights a quarter as often as one of 32.
"""

import triton
import triton.language as tl

from attunet.ops.gate.triton_kernels import _attention, _load, _load_vector, _load_weight, _relu, _store


@triton.jit
def _accumulate(
    hidden, rows, weight, row, k, f, count,
    channels: tl.constexpr, F: tl.constexpr, BLOCK_K: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """hidden (BLOCK_P, BLOCK_F) + rows (BLOCK_P, channels) weight^T (channels, F)."""
    for start in tl.range(0, channels, BLOCK_K, num_stages=STAGES):
        tile = _load(rows, row, start + k, channels, 1, count, channels)
        w = _load_weight(weight, f, start + k, F, channels, tile.dtype)
        hidden = tl.dot(tile, tl.trans(w), hidden)
    return hidden


@triton.jit
def streamed_forward(
    x, g, weight_x, weight_g, bias, psi_weight, psi_bias, out, alpha, count,
    C: tl.constexpr, G: tl.constexpr, F: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_F: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One tile: alpha and both halves of the concatenation. count: rows."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    k, f = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_F)
    hidden = tl.zeros((BLOCK_P, BLOCK_F), tl.float32) + _load_vector(bias, f, F)[None, :]
    hidden = _accumulate(hidden, x, weight_x, row, k, f, count, C, F, BLOCK_K, STAGES)
    hidden = _accumulate(hidden, g, weight_g, row, k, f, count, G, F, BLOCK_K, STAGES)
    a = _attention(_relu(hidden), _load_vector(psi_weight, f, F), psi_bias)
    tl.store(alpha + row, a.to(alpha.dtype.element_ty), mask=row < count)
    for start in range(0, C, BLOCK_K):
        gated = _load(x, row, start + k, C, 1, count, C).to(tl.float32) * a[:, None]
        _store(out, gated, row, start + k, C + G, 1, count, C)
    for start in range(0, G, BLOCK_K):
        _store(out + C, _load(g, row, start + k, G, 1, count, G), row, start + k, C + G, 1, count, G)


@triton.jit
def streamed_backward(
    grad_out, grad_alpha, x, g, weight_x, weight_g, bias, psi_weight, psi_bias,
    grad_x, grad_g, grad_hidden, partial, count,
    C: tl.constexpr, G: tl.constexpr, F: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_F: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One tile, as in gate_backward: recomputes alpha; writes grad_x, grad_g, grad_hidden (P, F), a row of partial."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    k, f = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_F)
    hidden = tl.zeros((BLOCK_P, BLOCK_F), tl.float32) + _load_vector(bias, f, F)[None, :]
    hidden = _accumulate(hidden, x, weight_x, row, k, f, count, C, F, BLOCK_K, STAGES)
    hidden = _relu(_accumulate(hidden, g, weight_g, row, k, f, count, G, F, BLOCK_K, STAGES))
    psi = _load_vector(psi_weight, f, F)
    a = _attention(hidden, psi, psi_bias)
    grad_a = tl.zeros((BLOCK_P,), tl.float32)
    if grad_alpha is not None:
        grad_a += tl.load(grad_alpha + row, mask=row < count, other=0.0).to(tl.float32)
    for start in range(0, C, BLOCK_K):
        grad = _load(grad_out, row, start + k, C + G, 1, count, C).to(tl.float32)
        grad_a += tl.sum(grad * _load(x, row, start + k, C, 1, count, C).to(tl.float32), axis=1)
    # Rows beyond the last have grad_a = 0, so they add nothing to the sums.
    grad_logit = grad_a * a * (1.0 - a)
    partial += tl.program_id(0).to(tl.int64) * (2 * F + 1)
    tl.store(partial + F + f, tl.sum(hidden * grad_logit[:, None], axis=0), mask=f < F)
    tl.store(partial + 2 * F, tl.sum(grad_logit, axis=0))
    hidden = tl.where(hidden <= 0.0, 0.0, grad_logit[:, None] * psi[None, :])  # its gradient from here on
    tl.store(partial + f, tl.sum(hidden, axis=0), mask=f < F)
    grad_h = hidden.to(x.dtype.element_ty)
    _store(grad_hidden, grad_h, row, f, F, 1, count, F)
    for start in range(0, C, BLOCK_K):
        w = _load_weight(weight_x, f, start + k, F, C, grad_h.dtype)
        grad = _load(grad_out, row, start + k, C + G, 1, count, C).to(tl.float32) * a[:, None]
        _store(grad_x, tl.dot(grad_h, w, grad), row, start + k, C, 1, count, C)
    for start in range(0, G, BLOCK_K):
        w = _load_weight(weight_g, f, start + k, F, G, grad_h.dtype)
        grad = _load(grad_out + C, row, start + k, C + G, 1, count, G).to(tl.float32)
        _store(grad_g, tl.dot(grad_h, w, grad), row, start + k, G, 1, count, G)


@triton.jit
def streamed_weight_gradient(
    x, g, grad_hidden, partial_x, partial_g, count, tiles,
    C: tl.constexpr, G: tl.constexpr, F: tl.constexpr, COLUMNS: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_F: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Both weights' gradients: the first COLUMNS columns of programs sum grad_hidden^T x, others grad_hidden^T g."""
    if tl.program_id(1) < COLUMNS:
        _sum_products(
            x, grad_hidden, partial_x, tl.program_id(1), count, tiles, C, F, BLOCK_P, BLOCK_C, BLOCK_F, STAGES
        )
    else:
        _sum_products(
            g, grad_hidden, partial_g, tl.program_id(1) - COLUMNS, count, tiles, G, F, BLOCK_P, BLOCK_C, BLOCK_F, STAGES
        )


@triton.jit
def _sum_products(
    rows, grad_hidden, partial, column, count, tiles,
    channels: tl.constexpr, F: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_F: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """partial[p] (F, channels): the tiles p, p + programs, ... in their order, so that the bits are always the same."""
    channel, f = column * BLOCK_C + tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_F)
    total = tl.zeros((BLOCK_C, BLOCK_F), tl.float32)
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), num_stages=STAGES):
        row = tile * BLOCK_P + tl.arange(0, BLOCK_P)
        left = _load(rows, row, channel, channels, 1, count, channels)
        right = _load(grad_hidden, row, f, F, 1, count, F)
        total = tl.dot(tl.trans(left), right, total)
    _store(partial + tl.program_id(0).to(tl.int64) * F * channels, total, channel, f, 1, channels, channels, F)


@triton.jit
def streamed_vector_finish(
    partial, grad_bias, grad_psi_weight, grad_psi_bias, parts,
    F: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Adds partial (parts, 2 F + 1) to the gradients of bias (F,), psi_weight (F,) and psi_bias (1,)."""
    column, r = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_R)
    total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for start in range(0, parts, BLOCK_R):
        total += _load(partial, start + r, column, 2 * F + 1, 1, parts, 2 * F + 1)
    sums = tl.sum(total, axis=0)
    tl.store(grad_bias + column, sums, mask=column < F)
    tl.store(grad_psi_weight + column - F, sums, mask=(column >= F) & (column < 2 * F))
    tl.store(grad_psi_bias + column - 2 * F, sums, mask=column == 2 * F)
