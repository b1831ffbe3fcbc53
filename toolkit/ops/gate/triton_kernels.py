# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, assignment"
# Kernel arguments have types only at compile time, and tuples grow.
"""Triton kernels of the attention gate. Imported on first use; nothing is compiled before the first launch.

Every tensor of pixels is addressed by three strides (image, pixel, channel), so one kernel serves channels-last, NCHW
and odd sizes. A tile is BLOCK_P pixels of one image with all their channels. Channels are padded to a power of two with
zeros, which add nothing.
"""

import triton
import triton.language as tl


@triton.jit
def _relu(hidden):
    """Keeps NaN, so that a diverged network shows it."""
    return tl.maximum(hidden, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _offsets(pixel, channel, stride_pixel, stride_channel):
    """64-bit offsets: an image may have more than 2^31 values."""
    return pixel.to(tl.int64)[:, None] * stride_pixel + channel.to(tl.int64)[None, :] * stride_channel


@triton.jit
def _load(base, pixel, channel, stride_pixel, stride_channel, pixels, channels: tl.constexpr):
    """The tile (pixel, channel), zero outside."""
    mask = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    return tl.load(base + _offsets(pixel, channel, stride_pixel, stride_channel), mask=mask, other=0.0)


@triton.jit
def _store(base, tile, pixel, channel, stride_pixel, stride_channel, pixels, channels: tl.constexpr):
    mask = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    tl.store(base + _offsets(pixel, channel, stride_pixel, stride_channel), tile.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _load_weight(weight, hidden, channel, hidden_width: tl.constexpr, channels: tl.constexpr, dtype: tl.constexpr):
    """(BLOCK_F, BLOCK_C) of a weight (F, C), in the dtype of the pixels."""
    mask = (hidden < hidden_width)[:, None] & (channel < channels)[None, :]
    return tl.load(weight + hidden[:, None] * channels + channel[None, :], mask=mask, other=0.0).to(dtype)


@triton.jit
def _load_vector(vector, hidden, hidden_width: tl.constexpr):
    return tl.load(vector + hidden, mask=hidden < hidden_width, other=0.0).to(tl.float32)


@triton.jit
def _sigmoid(logit):
    return 1.0 / (1.0 + tl.exp(-logit))


@triton.jit
def _load_tiles(base, pixel, k, stride_pixel, stride_channel, pixels, channels: tl.constexpr, BLOCK_K: tl.constexpr):
    """All channels of the pixels as a tuple of tiles (BLOCK_P, BLOCK_K): small operands keep products in registers."""
    tiles = ()
    for start in tl.static_range(0, channels, BLOCK_K):
        tiles += (_load(base, pixel, start + k, stride_pixel, stride_channel, pixels, channels),)
    return tiles


@triton.jit
def _project(
    hidden, tiles, weight, k, f, channels: tl.constexpr, F: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr
):
    """hidden (BLOCK_P, BLOCK_F) + tiles (BLOCK_P, channels) weight^T (channels, F)."""
    for i in tl.static_range(0, len(tiles)):
        w = _load_weight(weight, f, i * BLOCK_K + k, F, channels, tiles[i].dtype)
        hidden = tl.dot(tiles[i], tl.trans(w), hidden, input_precision=PRECISION)
    return hidden


@triton.jit
def _attention(hidden_tile, psi, psi_bias):
    """alpha (BLOCK_P,) from the hidden features after ReLU (BLOCK_P, BLOCK_F)."""
    return _sigmoid(tl.sum(hidden_tile * psi[None, :], axis=1) + tl.load(psi_bias).to(tl.float32))


@triton.jit
def gate_forward(
    x, g, weight_x, weight_g, bias, psi_weight, psi_bias, out, alpha, pixels, tiles_per_image,
    x_image, x_pixel, x_channel, g_image, g_pixel, g_channel, out_image, out_pixel, out_channel,
    C: tl.constexpr, G: tl.constexpr, F: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_F: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile: both projections, alpha, and both halves of the concatenation; x and g are read once."""
    tile = tl.program_id(0)
    image = (tile // tiles_per_image).to(tl.int64)
    pixel = (tile % tiles_per_image) * BLOCK_P + tl.arange(0, BLOCK_P)
    k, f = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_F)
    out += image * out_image
    x_tiles = _load_tiles(x + image * x_image, pixel, k, x_pixel, x_channel, pixels, C, BLOCK_K)
    g_tiles = _load_tiles(g + image * g_image, pixel, k, g_pixel, g_channel, pixels, G, BLOCK_K)
    for i in tl.static_range(0, len(g_tiles)):
        _store(out, g_tiles[i], pixel, C + i * BLOCK_K + k, out_pixel, out_channel, pixels, C + G)
    hidden = tl.zeros((BLOCK_P, BLOCK_F), tl.float32) + _load_vector(bias, f, F)[None, :]
    hidden = _project(hidden, x_tiles, weight_x, k, f, C, F, BLOCK_K, PRECISION)
    hidden = _project(hidden, g_tiles, weight_g, k, f, G, F, BLOCK_K, PRECISION)
    a = _attention(_relu(hidden), _load_vector(psi_weight, f, F), psi_bias)
    tl.store(alpha + image * pixels + pixel, a.to(alpha.dtype.element_ty), mask=pixel < pixels)
    for i in tl.static_range(0, len(x_tiles)):
        gated = x_tiles[i].to(tl.float32) * a[:, None]
        _store(out, gated, pixel, i * BLOCK_K + k, out_pixel, out_channel, pixels, C)


@triton.jit
def gate_backward(
    grad_out, grad_alpha, x, g, weight_x, weight_g, bias, psi_weight, psi_bias, grad_x, grad_g, grad_hidden, partial,
    pixels, tiles_per_image,
    grad_image, grad_pixel, grad_channel, x_image, x_pixel, x_channel, g_image, g_pixel, g_channel,
    gx_image, gx_pixel, gx_channel, gg_image, gg_pixel, gg_channel,
    C: tl.constexpr, G: tl.constexpr, F: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_F: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile: recomputes alpha, writes grad_x, grad_g, grad_hidden (all pixels, F) and its row of `partial`.

    The row is the tile's part of the gradients of bias (F), psi_weight (F) and psi_bias (1).
    """
    tile = tl.program_id(0).to(tl.int64)
    image = tile // tiles_per_image
    pixel = (tile % tiles_per_image).to(tl.int32) * BLOCK_P + tl.arange(0, BLOCK_P)
    k, f = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_F)
    grad_out += image * grad_image
    x_tiles = _load_tiles(x + image * x_image, pixel, k, x_pixel, x_channel, pixels, C, BLOCK_K)
    g_tiles = _load_tiles(g + image * g_image, pixel, k, g_pixel, g_channel, pixels, G, BLOCK_K)
    grad_tiles = _load_tiles(grad_out, pixel, k, grad_pixel, grad_channel, pixels, C, BLOCK_K)
    hidden = tl.zeros((BLOCK_P, BLOCK_F), tl.float32) + _load_vector(bias, f, F)[None, :]
    hidden = _project(hidden, x_tiles, weight_x, k, f, C, F, BLOCK_K, PRECISION)
    hidden = _relu(_project(hidden, g_tiles, weight_g, k, f, G, F, BLOCK_K, PRECISION))
    psi = _load_vector(psi_weight, f, F)
    a = _attention(hidden, psi, psi_bias)
    grad_a = tl.zeros((BLOCK_P,), tl.float32)
    if grad_alpha is not None:
        grad_a += tl.load(grad_alpha + image * pixels + pixel, mask=pixel < pixels, other=0.0).to(tl.float32)
    for i in tl.static_range(0, len(x_tiles)):
        grad_a += tl.sum(grad_tiles[i].to(tl.float32) * x_tiles[i].to(tl.float32), axis=1)
    # Pixels beyond the image have grad_a = 0, so they add nothing to the sums.
    grad_logit = grad_a * a * (1.0 - a)
    grad_h = tl.where(hidden <= 0.0, 0.0, grad_logit[:, None] * psi[None, :])
    partial += tile * (2 * F + 1)
    tl.store(partial + f, tl.sum(grad_h, axis=0), mask=f < F)
    tl.store(partial + F + f, tl.sum(hidden * grad_logit[:, None], axis=0), mask=f < F)
    tl.store(partial + 2 * F, tl.sum(grad_logit, axis=0))
    grad_h = grad_h.to(x_tiles[0].dtype)
    _store(grad_hidden + image * pixels * F, grad_h, pixel, f, F, 1, pixels, F)
    for i in tl.static_range(0, len(x_tiles)):
        w = _load_weight(weight_x, f, i * BLOCK_K + k, F, C, grad_h.dtype)
        grad_tile = tl.dot(grad_h, w, grad_tiles[i].to(tl.float32) * a[:, None], input_precision=PRECISION)
        _store(grad_x + image * gx_image, grad_tile, pixel, i * BLOCK_K + k, gx_pixel, gx_channel, pixels, C)
    for i in tl.static_range(0, len(g_tiles)):
        w = _load_weight(weight_g, f, i * BLOCK_K + k, F, G, grad_h.dtype)
        copied = _load(grad_out, pixel, C + i * BLOCK_K + k, grad_pixel, grad_channel, pixels, C + G)
        grad_tile = tl.dot(grad_h, w, copied.to(tl.float32), input_precision=PRECISION)
        _store(grad_g + image * gg_image, grad_tile, pixel, i * BLOCK_K + k, gg_pixel, gg_channel, pixels, G)


@triton.jit
def gate_weight_gradient(
    rows, grad_hidden, partial,
    pixels, tiles_per_image, tiles, rows_image, rows_pixel, rows_channel,
    C: tl.constexpr, F: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_F: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Program p sums grad_hidden^T rows over the tiles p, p + programs, ... into partial[p] (F, C).

    No two programs write to one place, and each adds in the order of its tiles: the bits are always the same.
    """
    channel, f = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_F)
    total = tl.zeros((BLOCK_C, BLOCK_F), tl.float32)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        image = (tile // tiles_per_image).to(tl.int64)
        pixel = (tile % tiles_per_image) * BLOCK_P + tl.arange(0, BLOCK_P)
        row = _load(rows + image * rows_image, pixel, channel, rows_pixel, rows_channel, pixels, C)
        grad_h = _load(grad_hidden + image * pixels * F, pixel, f, F, 1, pixels, F)
        total = tl.dot(tl.trans(row), grad_h, total, input_precision=PRECISION)
    _store(partial + tl.program_id(0).to(tl.int64) * F * C, total, channel, f, 1, C, C, F)


@triton.jit
def epilogue_forward(
    hidden, x, g, psi_weight, psi_bias, out, alpha,
    pixels,
    C: tl.constexpr, G: tl.constexpr, F: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The rest of a gate after library products: hidden (P, F) before ReLU, x (P, C), g (P, G), out (P, C + G)."""
    pixel = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    k = tl.arange(0, BLOCK_K)
    a = _row_attention(hidden, psi_weight, psi_bias, pixel, pixels, F, BLOCK_P, BLOCK_K)
    tl.store(alpha + pixel, a.to(alpha.dtype.element_ty), mask=pixel < pixels)
    for start in range(0, C, BLOCK_K):
        gated = _load(x, pixel, start + k, C, 1, pixels, C).to(tl.float32) * a[:, None]
        _store(out, gated, pixel, start + k, C + G, 1, pixels, C)
    for start in range(0, G, BLOCK_K):
        _store(out + C, _load(g, pixel, start + k, G, 1, pixels, G), pixel, start + k, C + G, 1, pixels, G)


@triton.jit
def epilogue_backward(
    grad_out, grad_alpha, hidden, x, psi_weight, psi_bias, grad_x, partial,
    pixels,
    C: tl.constexpr, G: tl.constexpr, F: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Replaces hidden (P, F) by its gradient; grad_x (P, C) becomes alpha * grad_out; `partial` as in gate_backward."""
    pixel = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    k = tl.arange(0, BLOCK_K)
    a = _row_attention(hidden, psi_weight, psi_bias, pixel, pixels, F, BLOCK_P, BLOCK_K)
    grad_a = tl.zeros((BLOCK_P,), tl.float32)
    if grad_alpha is not None:
        grad_a += tl.load(grad_alpha + pixel, mask=pixel < pixels, other=0.0).to(tl.float32)
    for start in range(0, C, BLOCK_K):
        grad = _load(grad_out, pixel, start + k, C + G, 1, pixels, C).to(tl.float32)
        grad_a += tl.sum(grad * _load(x, pixel, start + k, C, 1, pixels, C).to(tl.float32), axis=1)
        _store(grad_x, grad * a[:, None], pixel, start + k, C, 1, pixels, C)
    grad_logit = grad_a * a * (1.0 - a)
    partial += tl.program_id(0).to(tl.int64) * (2 * F + 1)
    for start in range(0, F, BLOCK_K):
        h = _relu(_load(hidden, pixel, start + k, F, 1, pixels, F).to(tl.float32))
        grad_h = tl.where(h <= 0.0, 0.0, grad_logit[:, None] * _load_vector(psi_weight, start + k, F)[None, :])
        _store(hidden, grad_h, pixel, start + k, F, 1, pixels, F)
        tl.store(partial + start + k, tl.sum(grad_h, axis=0), mask=start + k < F)
        tl.store(partial + F + start + k, tl.sum(h * grad_logit[:, None], axis=0), mask=start + k < F)
    tl.store(partial + 2 * F, tl.sum(grad_logit, axis=0))


@triton.jit
def _row_attention(
    hidden, psi_weight, psi_bias, pixel, pixels, F: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr
):
    """alpha (BLOCK_P,) from rows of hidden (P, F) before ReLU."""
    k = tl.arange(0, BLOCK_K)
    logit = tl.zeros((BLOCK_P,), tl.float32)
    for start in range(0, F, BLOCK_K):
        h = _relu(_load(hidden, pixel, start + k, F, 1, pixels, F).to(tl.float32))
        logit += tl.sum(h * _load_vector(psi_weight, start + k, F)[None, :], axis=1)
    return _sigmoid(logit + tl.load(psi_bias).to(tl.float32))
