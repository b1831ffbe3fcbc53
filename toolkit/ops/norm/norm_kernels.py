# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, assignment"
# Kernel arguments have types only at compile time.
"""Triton kernels of batch norm with ReLU. Imported on first use; nothing is compiled before the first launch.

Tensors are rows of C channels (channels-last). A tile is BLOCK_P rows by BLOCK_C channels. Arithmetic is in float32.
Bytes per element in 16 bits, 16 in all: statistics read 2; normalise reads 2 and writes 2; gradient sums read 4;
gradient reads 4 and writes 2.
"""

import triton
import triton.language as tl


@triton.jit
def _tile(base, row, channel, rows, C: tl.constexpr):
    """Pointers and mask of a tile; 64-bit offsets, since a tensor may have more than 2^31 values."""
    return base + row.to(tl.int64)[:, None] * C + channel[None, :], (row < rows)[:, None] & (channel < C)[None, :]


@triton.jit
def _load_tile(base, row, channel, rows, C: tl.constexpr):
    pointers, mask = _tile(base, row, channel, rows, C)
    return tl.load(pointers, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _store_tile(base, tile, row, channel, rows, C: tl.constexpr):
    pointers, mask = _tile(base, row, channel, rows, C)
    tl.store(pointers, tile.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _load_vector(vector, channel, C: tl.constexpr):
    return tl.load(vector + channel, mask=channel < C, other=0.0).to(tl.float32)


@triton.jit
def _affine(weight, bias, mean, var, channel, eps, C: tl.constexpr):
    """Centre, scale and bias of the channels, each (BLOCK_C,): relu((x - centre) * scale + bias) in every kernel, so
    that all round alike and the gradient's mask is the output's.
    """
    scale = _rstd(var, channel, eps, C) * _load_vector(weight, channel, C)
    return _load_vector(mean, channel, C), scale, _load_vector(bias, channel, C)


@triton.jit
def _rstd(var, channel, eps, C: tl.constexpr):
    return 1.0 / tl.sqrt_rn(_load_vector(var, channel, C) + eps)


@triton.jit
def _dy(grad, deviation, scale, b):
    """The gradient behind the ReLU; NaN stays NaN."""
    return tl.where(deviation * scale[None, :] + b[None, :] <= 0.0, 0.0, grad)


@triton.jit
def norm_statistics(x, partial, rows, tiles, C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Program (p, column) reduces the tiles p, p + programs, ... to partial[p] (3, C):
    count, mean, sum of squared deviations.

    Sums are shifted by the program's first row, which is near the mean: the square of a large mean never enters them.
    """
    first, programs = tl.program_id(0), tl.num_programs(0)
    channel, p = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_P)
    shift = tl.load(x + (first * BLOCK_P).to(tl.int64) * C + channel, mask=channel < C, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    squares = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for tile in tl.range(first, tiles, programs, num_stages=3):
        row = tile * BLOCK_P + p
        deviation = tl.where((row < rows)[:, None], _load_tile(x, row, channel, rows, C) - shift[None, :], 0.0)
        total += deviation
        squares += deviation * deviation
    count = (tl.cdiv(tiles - first, programs) * BLOCK_P).to(tl.float32)
    if (tiles - 1 - first) % programs == 0:  # this program had the last tile, which may have fewer rows
        count -= (tiles * BLOCK_P - rows).to(tl.float32)
    sums = tl.sum(total, axis=0)
    deviations = tl.sum(squares, axis=0) - sums * sums / count
    partial += first * 3 * C + channel
    tl.store(partial, tl.zeros((BLOCK_C,), tl.float32) + count, mask=channel < C)
    tl.store(partial + C, shift + sums / count, mask=channel < C)
    tl.store(partial + 2 * C, tl.where(deviations < 0.0, 0.0, deviations), mask=channel < C)


@triton.jit
def _load_part(partial, figure: tl.constexpr, part, channel, parts, C: tl.constexpr):
    """One figure (count, mean or squared deviations) of several parts of partial (parts, 3, C)."""
    return _load_tile(partial + figure * C, 3 * part, channel, 3 * parts, C)


@triton.jit
def norm_finish(
    partial, mean, var, count, running_mean, running_var, parts, momentum,
    C: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Combines partial (parts, 3, C) to mean, biased variance (C,) and count (1,) (Chan et al. 1979).

    The running statistics are updated, unless they are None.
    """
    channel, r = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_R)
    shift = tl.load(partial + C + channel, mask=channel < C, other=0.0)
    total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    sums = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for start in range(0, parts, BLOCK_R):
        n = _load_part(partial, 0, start + r, channel, parts, C)
        part = _load_part(partial, 1, start + r, channel, parts, C)
        total += n
        sums += n * (part - shift[None, :])
    number = tl.sum(total, axis=0)
    average = shift + tl.sum(sums, axis=0) / number
    squares = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for start in range(0, parts, BLOCK_R):
        n = _load_part(partial, 0, start + r, channel, parts, C)
        part = _load_part(partial, 1, start + r, channel, parts, C)
        deviation = part - average[None, :]
        squares += _load_part(partial, 2, start + r, channel, parts, C) + n * deviation * deviation
    deviations = tl.sum(squares, axis=0)
    tl.store(mean + channel, average, mask=channel < C)
    tl.store(var + channel, deviations / number, mask=channel < C)
    if tl.program_id(0) == 0:
        tl.store(count + tl.arange(0, BLOCK_C), number, mask=tl.arange(0, BLOCK_C) == 0)
    if running_mean is not None:
        old_mean, old_var = _load_vector(running_mean, channel, C), _load_vector(running_var, channel, C)
        tl.store(running_mean + channel, old_mean + momentum * (average - old_mean), mask=channel < C)
        tl.store(running_var + channel, old_var + momentum * (deviations / (number - 1.0) - old_var), mask=channel < C)


@triton.jit
def norm_apply(
    x, weight, bias, mean, var, out, rows, eps, C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):
    """out = relu((x - mean) / sqrt(var + eps) * weight + bias), one tile. NaN stays NaN."""
    row = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    centre, scale, b = _affine(weight, bias, mean, var, channel, eps, C)
    y = (_load_tile(x, row, channel, rows, C) - centre[None, :]) * scale[None, :] + b[None, :]
    _store_tile(out, tl.where(y <= 0.0, 0.0, y), row, channel, rows, C)


@triton.jit
def norm_gradient_sums(
    grad, x, weight, bias, mean, var, partial, rows, tiles, eps,
    C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Program (p, column) sums the tiles p, p + programs, ... to partial[p] (2, C): dy, and dy * normalised x."""
    first = tl.program_id(0)
    channel, p = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_P)
    centre, scale, b = _affine(weight, bias, mean, var, channel, eps, C)
    sum_dy = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    sum_dy_x = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for tile in tl.range(first, tiles, tl.num_programs(0), num_stages=3):
        row = tile * BLOCK_P + p
        deviation = _load_tile(x, row, channel, rows, C) - centre[None, :]
        dy = _dy(_load_tile(grad, row, channel, rows, C), deviation, scale, b)
        sum_dy += dy
        sum_dy_x += dy * deviation
    partial += first * 2 * C + channel
    tl.store(partial, tl.sum(sum_dy, axis=0), mask=channel < C)
    tl.store(partial + C, tl.sum(sum_dy_x, axis=0) * _rstd(var, channel, eps, C), mask=channel < C)


@triton.jit
def norm_gradient_finish(
    partial, grad_weight, grad_bias, parts, C: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Adds partial (parts, 2, C) to grad_bias (sum of dy) and grad_weight (sum of dy * normalised x), each (C,)."""
    channel, r = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_R)
    sum_dy = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    sum_dy_x = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for start in range(0, parts, BLOCK_R):
        sum_dy += _load_tile(partial, 2 * (start + r), channel, 2 * parts, C)
        sum_dy_x += _load_tile(partial + C, 2 * (start + r), channel, 2 * parts, C)
    tl.store(grad_bias + channel, tl.sum(sum_dy, axis=0), mask=channel < C)
    tl.store(grad_weight + channel, tl.sum(sum_dy_x, axis=0), mask=channel < C)


@triton.jit
def norm_gradient(
    grad, x, weight, bias, mean, var, count, sum_dy, sum_dy_x, grad_x, rows, eps,
    C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """grad_x of one tile. count, sum_dy and sum_dy_x are None for fixed statistics, which do not depend on x."""
    row = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    centre, scale, b = _affine(weight, bias, mean, var, channel, eps, C)
    deviation = _load_tile(x, row, channel, rows, C) - centre[None, :]
    dy = _dy(_load_tile(grad, row, channel, rows, C), deviation, scale, b)
    if count is not None:
        number = tl.load(count)
        mean_dy = _load_vector(sum_dy, channel, C) / number
        slope = _load_vector(sum_dy_x, channel, C) / number * _rstd(var, channel, eps, C)
        dy -= mean_dy[None, :] + deviation * slope[None, :]
    _store_tile(grad_x, dy * scale[None, :], row, channel, rows, C)
