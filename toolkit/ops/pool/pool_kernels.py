# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# Kernel arguments have types only at compile time.
"""Triton kernels of 2x2 max pooling. Imported on first use; nothing is compiled before the first launch.

Tensors are rows of C channels (channels-last). A tile is BLOCK_P rows of the result by BLOCK_C channels. Bytes per
input element in 16 bits: forward 2.75 (reads 2, writes a quarter of 2 and of 1), backward 2.75; torch's kernels keep
8-byte indices and move 6.5 and 6.5.
"""

import triton
import triton.language as tl


@triton.jit
def _places(rows, width, C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Offsets of a tile of the result, of its windows' first elements in the input, and its mask. width: of the result.

    Row (n, i, j) of the result covers rows (n, 2i, 2j) and so on of the input, whose height is twice the result's.
    """
    row = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    window = 2 * row + row // width * (2 * width)
    mask = (row < rows)[:, None] & (channel < C)[None, :]
    return row[:, None] * C + channel[None, :], window[:, None] * C + channel[None, :], mask


@triton.jit
def _take_larger(largest, index, x, offset, mask, number: tl.constexpr):
    """The larger of `largest` and x at `offset`, with its index; the first of equal values, the last NaN."""
    value = tl.load(x + offset, mask=mask, other=0.0).to(tl.float32)
    larger = (value > largest) | (value != value)
    return tl.where(larger, value, largest), tl.where(larger, number, index)


@triton.jit
def pool_forward(x, out, chosen, rows, width, C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """out: the largest value of each window. chosen: its place there, 0 to 3, uint8; None without a gradient."""
    place, window, mask = _places(rows, width, C, BLOCK_P, BLOCK_C)
    largest = tl.load(x + window, mask=mask, other=0.0).to(tl.float32)
    index = tl.zeros((BLOCK_P, BLOCK_C), tl.int32)
    largest, index = _take_larger(largest, index, x, window + C, mask, 1)
    largest, index = _take_larger(largest, index, x, window + 2 * width * C, mask, 2)
    largest, index = _take_larger(largest, index, x, window + 2 * width * C + C, mask, 3)
    tl.store(out + place, largest.to(out.dtype.element_ty), mask=mask)
    if chosen is not None:
        tl.store(chosen + place, index.to(tl.uint8), mask=mask)


@triton.jit
def pool_backward(grad, chosen, grad_x, rows, width, C: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """grad_x: the gradient at the chosen place of each window, 0 at the others."""
    place, window, mask = _places(rows, width, C, BLOCK_P, BLOCK_C)
    gradient = tl.load(grad + place, mask=mask, other=0.0)
    index = tl.load(chosen + place, mask=mask, other=0)
    nothing = tl.zeros((BLOCK_P, BLOCK_C), grad.dtype.element_ty)
    tl.store(grad_x + window, tl.where(index == 0, gradient, nothing), mask=mask)
    tl.store(grad_x + window + C, tl.where(index == 1, gradient, nothing), mask=mask)
    tl.store(grad_x + window + 2 * width * C, tl.where(index == 2, gradient, nothing), mask=mask)
    tl.store(grad_x + window + 2 * width * C + C, tl.where(index == 3, gradient, nothing), mask=mask)
