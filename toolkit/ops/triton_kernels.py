"""Triton kernels of the attention gate. Imported on first use; nothing is compiled before the first launch.

Every tensor of pixels is addressed by three strides, image, pixel and channel, so that channels-last, NCHW and odd sizes are one code.
A tile is BLOCK_P pixels of one image with all their channels. Channels are padded to a power of two with zeros, which add nothing.
"""

import triton
import triton.language as tl


@triton.jit
def _load(base, pixel, channel, stride_pixel, stride_channel, pixels, channels: tl.constexpr):
    """The tile (pixel, channel), zero outside."""
    mask = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    return tl.load(base + pixel[:, None] * stride_pixel + channel[None, :] * stride_channel, mask=mask, other=0.0)


@triton.jit
def _store(base, tile, pixel, channel, stride_pixel, stride_channel, pixels, channels: tl.constexpr):
    mask = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    tl.store(base + pixel[:, None] * stride_pixel + channel[None, :] * stride_channel, tile.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _load_weight(weight, hidden, channel, hidden_width: tl.constexpr, channels: tl.constexpr, dtype: tl.constexpr):
    """(BLOCK_F, BLOCK_C) of a weight (F, C), in the dtype of the pixels."""
    mask = (hidden < hidden_width)[:, None] & (channel < channels)[None, :]
    return tl.load(weight + hidden[:, None] * channels + channel[None, :], mask=mask, other=0.0).to(dtype)


@triton.jit
def _load_vector(vector, hidden, hidden_width: tl.constexpr):
    return tl.load(vector + hidden, mask=hidden < hidden_width, other=0.0).to(tl.float32)


@triton.jit
def _attention(hidden_tile, psi, psi_bias):
    """alpha (BLOCK_P,) of the hidden features after ReLU (BLOCK_P, BLOCK_F)."""
    logit = tl.sum(hidden_tile * psi[None, :], axis=1) + tl.load(psi_bias).to(tl.float32)
    return 1.0 / (1.0 + tl.exp(-logit))


@triton.jit
def gate_forward(
    x, g, weight_x, weight_g, bias, psi_weight, psi_bias, out, alpha,
    pixels, tiles_per_image,
    x_image, x_pixel, x_channel, g_image, g_pixel, g_channel, out_image, out_pixel, out_channel,
    C: tl.constexpr, G: tl.constexpr, F: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_F: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile: both projections, alpha, and both halves of the concatenation; x and g are read once."""
    tile = tl.program_id(0)
    image = (tile // tiles_per_image).to(tl.int64)
    pixel = (tile % tiles_per_image) * BLOCK_P + tl.arange(0, BLOCK_P)
    k, f = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_F)
    x += image * x_image
    g += image * g_image
    out += image * out_image
    x_tiles = ()
    for start in tl.static_range(0, C, BLOCK_K):
        x_tiles += (_load(x, pixel, start + k, x_pixel, x_channel, pixels, C),)
    g_tiles = ()
    for start in tl.static_range(0, G, BLOCK_K):
        g_tiles += (_load(g, pixel, start + k, g_pixel, g_channel, pixels, G),)
    hidden = tl.zeros((BLOCK_P, BLOCK_F), tl.float32) + _load_vector(bias, f, F)[None, :]
    for i in tl.static_range(0, len(x_tiles)):
        w = _load_weight(weight_x, f, i * BLOCK_K + k, F, C, x_tiles[i].dtype)
        hidden = tl.dot(x_tiles[i], tl.trans(w), hidden, input_precision=PRECISION)
    for i in tl.static_range(0, len(g_tiles)):
        w = _load_weight(weight_g, f, i * BLOCK_K + k, F, G, g_tiles[i].dtype)
        hidden = tl.dot(g_tiles[i], tl.trans(w), hidden, input_precision=PRECISION)
        _store(out + C * out_channel, g_tiles[i], pixel, i * BLOCK_K + k, out_pixel, out_channel, pixels, G)
    a = _attention(tl.maximum(hidden, 0.0), _load_vector(psi_weight, f, F), psi_bias)
    tl.store(alpha + image * pixels + pixel, a.to(alpha.dtype.element_ty), mask=pixel < pixels)
    for i in tl.static_range(0, len(x_tiles)):
        gated = x_tiles[i].to(tl.float32) * a[:, None]
        _store(out, gated, pixel, i * BLOCK_K + k, out_pixel, out_channel, pixels, C)


@triton.jit
def gate_backward(
    grad_out, grad_alpha, x, g, weight_x, weight_g, bias, psi_weight, psi_bias, grad_x, grad_g, grad_hidden, partial,
    pixels, tiles_per_image, tiles,
    grad_image, grad_pixel, grad_channel, x_image, x_pixel, x_channel, g_image, g_pixel, g_channel,
    gx_image, gx_pixel, gx_channel, gg_image, gg_pixel, gg_channel,
    C: tl.constexpr, G: tl.constexpr, F: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_F: tl.constexpr, PRECISION: tl.constexpr, SUM_WEIGHTS: tl.constexpr,
):  # fmt: skip
    """Tiles program, program + programs, ...: computes alpha again, writes grad_x and grad_g, and adds up what the parameters get.

    The sums of a program go to its own row of `partial`: (C, F) of weight_x, (G, F) of weight_g, bias, psi_weight, psi_bias.
    Without SUM_WEIGHTS the first two are left out, and `grad_hidden` (all pixels, F) is written for a matrix product outside.
    """
    k, f = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_F)
    b, psi = _load_vector(bias, f, F), _load_vector(psi_weight, f, F)
    sum_bias = tl.zeros((BLOCK_F,), tl.float32)
    sum_psi = tl.zeros((BLOCK_F,), tl.float32)
    sum_psi_bias = 0.0
    sums_x = ()
    sums_g = ()
    if SUM_WEIGHTS:
        for _ in tl.static_range(0, C, BLOCK_K):
            sums_x += (tl.zeros((BLOCK_K, BLOCK_F), tl.float32),)
        for _ in tl.static_range(0, G, BLOCK_K):
            sums_g += (tl.zeros((BLOCK_K, BLOCK_F), tl.float32),)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        image = (tile // tiles_per_image).to(tl.int64)
        pixel = (tile % tiles_per_image) * BLOCK_P + tl.arange(0, BLOCK_P)
        grad = grad_out + image * grad_image
        x_tiles = ()
        for start in tl.static_range(0, C, BLOCK_K):
            x_tiles += (_load(x + image * x_image, pixel, start + k, x_pixel, x_channel, pixels, C),)
        g_tiles = ()
        for start in tl.static_range(0, G, BLOCK_K):
            g_tiles += (_load(g + image * g_image, pixel, start + k, g_pixel, g_channel, pixels, G),)
        grad_tiles = ()
        for start in tl.static_range(0, C, BLOCK_K):
            grad_tiles += (_load(grad, pixel, start + k, grad_pixel, grad_channel, pixels, C),)
        hidden = tl.zeros((BLOCK_P, BLOCK_F), tl.float32) + b[None, :]
        for i in tl.static_range(0, len(x_tiles)):
            w = _load_weight(weight_x, f, i * BLOCK_K + k, F, C, x_tiles[i].dtype)
            hidden = tl.dot(x_tiles[i], tl.trans(w), hidden, input_precision=PRECISION)
        for i in tl.static_range(0, len(g_tiles)):
            w = _load_weight(weight_g, f, i * BLOCK_K + k, F, G, g_tiles[i].dtype)
            hidden = tl.dot(g_tiles[i], tl.trans(w), hidden, input_precision=PRECISION)
        hidden = tl.maximum(hidden, 0.0)
        a = _attention(hidden, psi, psi_bias)
        grad_a = tl.zeros((BLOCK_P,), tl.float32)
        if grad_alpha is not None:
            grad_a += tl.load(grad_alpha + image * pixels + pixel, mask=pixel < pixels, other=0.0).to(tl.float32)
        for i in tl.static_range(0, len(x_tiles)):
            grad_a += tl.sum(grad_tiles[i].to(tl.float32) * x_tiles[i].to(tl.float32), axis=1)
        # Pixels beyond the image have grad_a = 0, so they add nothing to any sum.
        grad_logit = grad_a * a * (1.0 - a)
        sum_psi += tl.sum(hidden * grad_logit[:, None], axis=0)
        sum_psi_bias += tl.sum(grad_logit, axis=0)
        grad_h = tl.where(hidden > 0.0, grad_logit[:, None] * psi[None, :], 0.0)
        sum_bias += tl.sum(grad_h, axis=0)
        grad_h = grad_h.to(x_tiles[0].dtype)
        if not SUM_WEIGHTS:
            _store(grad_hidden + image * pixels * F, grad_h, pixel, f, F, 1, pixels, F)
        for i in tl.static_range(0, len(x_tiles)):
            w = _load_weight(weight_x, f, i * BLOCK_K + k, F, C, x_tiles[i].dtype)
            grad_tile = tl.dot(grad_h, w, grad_tiles[i].to(tl.float32) * a[:, None], input_precision=PRECISION)
            _store(grad_x + image * gx_image, grad_tile, pixel, i * BLOCK_K + k, gx_pixel, gx_channel, pixels, C)
        for i in tl.static_range(0, len(g_tiles)):
            w = _load_weight(weight_g, f, i * BLOCK_K + k, F, G, g_tiles[i].dtype)
            copied = _load(grad + C * grad_channel, pixel, i * BLOCK_K + k, grad_pixel, grad_channel, pixels, G)
            grad_tile = tl.dot(grad_h, w, copied.to(tl.float32), input_precision=PRECISION)
            _store(grad_g + image * gg_image, grad_tile, pixel, i * BLOCK_K + k, gg_pixel, gg_channel, pixels, G)
        if SUM_WEIGHTS:
            sums_x = _add_products(sums_x, x_tiles, grad_h, PRECISION)
            sums_g = _add_products(sums_g, g_tiles, grad_h, PRECISION)
    partial += tl.program_id(0).to(tl.int64) * ((C + G) * F * SUM_WEIGHTS + 2 * F + 1)
    if SUM_WEIGHTS:
        for i in tl.static_range(0, len(sums_x)):
            _store(partial, sums_x[i], i * BLOCK_K + k, f, F, 1, C, F)
        for i in tl.static_range(0, len(sums_g)):
            _store(partial + C * F, sums_g[i], i * BLOCK_K + k, f, F, 1, G, F)
        partial += (C + G) * F
    tl.store(partial + f, sum_bias, mask=f < F)
    tl.store(partial + F + f, sum_psi, mask=f < F)
    tl.store(partial + 2 * F, sum_psi_bias)


@triton.jit
def _add_products(sums, tiles, grad_h, PRECISION: tl.constexpr):
    """sums[i] (BLOCK_K, BLOCK_F) += tiles[i]^T grad_h, a share of the gradient of a weight, transposed."""
    added = ()
    for i in tl.static_range(0, len(sums)):
        added += (tl.dot(tl.trans(tiles[i]), grad_h, sums[i], input_precision=PRECISION),)
    return added
