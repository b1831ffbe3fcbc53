"""Launches of the gate's Triton kernels: grids, tilings, strides. Imported on first use, since it imports Triton."""

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from attunet.ops.gate import streamed_gate
from attunet.ops.gate import triton_kernels as kernels
from attunet.ops.gate.reference import GateParameters
from attunet.ops.gate.streamed_gate import block_of
from attunet.ops.memory_format import as_rows, copy_rows, empty_alpha, empty_result
from attunet.ops.triton_device import num_multiprocessors, on_device_of


@dataclass(frozen=True)
class Tiling:
    """Pixels of a tile, channels per matrix product, warps."""

    pixels: int
    channels: int
    warps: int


# (bytes of a number, width) -> tilings (forward, backward), where width is the largest of C, G and 2 F. Wider gates in
# 16 bits stream their channels (`streamed_gate`); the widest, and wide ones in float32, use the library's matrix
# products. Chosen by the compiler's report for sm_80 and sm_90: no spills, at least 8 warps on a multiprocessor.
# float32 products run without tensor cores (no TF32), so the library takes over at a smaller width.
TILINGS = {
    (2, 64): (Tiling(128, 64, 8), Tiling(64, 64, 4)),
    (2, 128): (Tiling(64, 64, 8), Tiling(32, 64, 8)),
    (4, 64): (Tiling(32, 16, 8), Tiling(32, 16, 8)),
    (4, 128): (Tiling(32, 16, 8), Tiling(16, 16, 8)),
}
EPILOGUE_PIXELS, EPILOGUE_CHANNELS = 16, 128


def choose_tilings(channels: int, gating_channels: int, hidden: int, element_size: int) -> tuple[Tiling, Tiling] | None:
    """Tilings of the fused forward and backward kernels, or None for wider gates."""
    width = max(channels, gating_channels, 2 * hidden)
    fitting = sorted(limit for size, limit in TILINGS if size == element_size and width <= limit)
    if not fitting:
        return None
    block = block_of(max(channels, gating_channels))
    forward, backward = (Tiling(t.pixels, min(t.channels, block), t.warps) for t in TILINGS[element_size, fitting[0]])
    return forward, backward


def weight_tiling(channels: int, hidden: int, element_size: int) -> Tiling:
    """Tiling of one weight's gradient: pixels of a step, channels of a program."""
    return Tiling(64 if element_size == 2 else 16, min(64, block_of(channels)), 8 if hidden > 32 else 4)


def forward(x: Tensor, g: Tensor, parameters: GateParameters) -> tuple[Tensor, Tensor]:
    """Returns out (N, C + G, H, W) and alpha (N, 1, H, W)."""
    out, alpha = empty_result(x, g, x.shape[1] + g.shape[1]), empty_alpha(x)
    if alpha.numel() == 0:
        return out, alpha
    parameters = _prepared(x, parameters)
    tilings = choose_tilings(x.shape[1], g.shape[1], len(parameters.bias), x.element_size())
    with on_device_of(x):
        if tilings:
            _fused_forward(x, g, parameters, out, alpha, tilings[0])
        elif streamed_gate.fits(x, len(parameters.bias)):
            streamed_gate.forward(x, g, parameters, out, alpha)
        else:
            _wide_forward(x, g, parameters, out, alpha)
    return out, alpha


def backward(
    grad_out: Tensor, grad_alpha: Tensor | None, x: Tensor, g: Tensor, parameters: GateParameters
) -> tuple[Tensor, Tensor, GateParameters]:
    """Returns the gradients of x, g and the parameters, the same bits every time.

    Sums over pixels are in float32 and always in the same order. The library's products, used for wide gates, round the
    gradients of both weights to the dtype of the pixels.

    Example:
        >>> grad_x, grad_g, gradients = backward(torch.ones_like(out), None, x, g, parameters)  # doctest: +SKIP
    """
    grad_x, grad_g = empty_result(x, g, x.shape[1]), empty_result(x, g, g.shape[1])
    if grad_x.numel() == 0:
        return grad_x, grad_g, GateParameters(*(torch.zeros_like(p) for p in parameters))
    prepared = _prepared(x, parameters)
    grad_alpha = None if grad_alpha is None else grad_alpha.contiguous()
    tilings = choose_tilings(x.shape[1], g.shape[1], len(prepared.bias), x.element_size())
    with on_device_of(x):
        if tilings:
            gradients = _fused_backward(grad_out, grad_alpha, x, g, prepared, grad_x, grad_g, tilings[1])
        elif streamed_gate.fits(x, len(prepared.bias)):
            gradients = streamed_gate.backward(grad_out, grad_alpha, x, g, prepared, grad_x, grad_g)
        else:
            gradients = _wide_backward(grad_out, grad_alpha, x, g, prepared, grad_x, grad_g)
    return grad_x, grad_g, GateParameters(*(s.to(p.dtype) for s, p in zip(gradients, parameters, strict=True)))


def _sums(partial: Tensor, hidden: int) -> list[Tensor]:
    """The gradients of bias, psi_weight and psi_bias from each tile's part of them, a row of `partial`."""
    return [part.sum(0) for part in torch.split(partial, [hidden, hidden, 1], dim=1)]


def _prepared(x: Tensor, parameters: GateParameters) -> GateParameters:
    """Contiguous parameters, weights in x's dtype: every tile reads them all, and float32 would double that traffic."""
    weights = (parameters.weight_x.to(x.dtype), parameters.weight_g.to(x.dtype))
    return GateParameters(*(p.contiguous() for p in (*weights, *parameters[2:])))


def _fused_forward(
    x: Tensor, g: Tensor, parameters: GateParameters, out: Tensor, alpha: Tensor, tiling: Tiling
) -> None:
    (x, *x_strides), (g, *g_strides), (_, *out_strides) = _strided(x), _strided(g), _strided(out)
    tiles_per_image = triton.cdiv(_pixels(x), tiling.pixels)
    kernels.gate_forward[(x.shape[0] * tiles_per_image,)](
        x, g, *parameters, out, alpha, _pixels(x), tiles_per_image,
        *x_strides, *g_strides, *out_strides, **_constants(x, g, parameters, tiling),
    )  # fmt: skip


def _fused_backward(
    grad_out: Tensor, grad_alpha: Tensor | None, x: Tensor, g: Tensor, parameters: GateParameters,
    grad_x: Tensor, grad_g: Tensor, tiling: Tiling,
) -> GateParameters:  # fmt: skip
    """Fills grad_x and grad_g; returns the gradients of the parameters."""
    (grad_out, *strides), (x, *x_strides), (g, *g_strides) = _strided(grad_out), _strided(x), _strided(g)
    tiles_per_image = triton.cdiv(_pixels(x), tiling.pixels)
    tiles = x.shape[0] * tiles_per_image
    grad_hidden = x.new_empty((x.shape[0] * _pixels(x), len(parameters.bias)))
    partial = x.new_empty((tiles, 2 * len(parameters.bias) + 1), dtype=torch.float32)
    kernels.gate_backward[(tiles,)](
        grad_out, grad_alpha, x, g, *parameters, grad_x, grad_g, grad_hidden, partial,
        _pixels(x), tiles_per_image, *strides, *x_strides, *g_strides, *_strided(grad_x)[1:], *_strided(grad_g)[1:],
        **_constants(x, g, parameters, tiling),
    )  # fmt: skip
    of_weights = _weight_gradient(x, x_strides, grad_hidden), _weight_gradient(g, g_strides, grad_hidden)
    return GateParameters(*of_weights, *_sums(partial, len(parameters.bias)))


def _weight_gradient(rows: Tensor, strides: list[int], grad_hidden: Tensor) -> Tensor:
    """grad_hidden^T (F, pixels) times the pixels of rows (N, C, H, W): (F, C) in float32."""
    channels, hidden = rows.shape[1], grad_hidden.shape[1]
    tiling = weight_tiling(channels, hidden, rows.element_size())
    tiles_per_image = triton.cdiv(_pixels(rows), tiling.pixels)
    tiles, columns = rows.shape[0] * tiles_per_image, triton.cdiv(channels, tiling.channels)
    programs = min(tiles, max(1, 2 * num_multiprocessors(rows) // columns))
    partial = rows.new_empty((programs, hidden, channels), dtype=torch.float32)
    kernels.gate_weight_gradient[(programs, columns)](
        rows, grad_hidden, partial, _pixels(rows), tiles_per_image, tiles, *strides,
        C=channels, F=hidden, BLOCK_P=tiling.pixels, BLOCK_C=tiling.channels, BLOCK_F=block_of(hidden),
        PRECISION=_precision(rows), num_warps=tiling.warps, num_stages=3,
    )  # fmt: skip
    return partial.sum(0)


def _wide_forward(x: Tensor, g: Tensor, parameters: GateParameters, out: Tensor, alpha: Tensor) -> None:
    rows_x, rows_g, rows_out = as_rows(x), as_rows(g), as_rows(out)
    kernels.epilogue_forward[(triton.cdiv(len(rows_x), EPILOGUE_PIXELS),)](
        _hidden(rows_x, rows_g, parameters), rows_x, rows_g, *parameters[3:], rows_out, alpha,
        len(rows_x), **_epilogue_constants(x, g, parameters),
    )  # fmt: skip
    copy_rows(rows_out, out)


def _wide_backward(
    grad_out: Tensor, grad_alpha: Tensor | None, x: Tensor, g: Tensor, parameters: GateParameters,
    grad_x: Tensor, grad_g: Tensor,
) -> GateParameters:  # fmt: skip
    """As `_fused_backward`, with the library's matrix products."""
    rows_x, rows_g, rows_grad = as_rows(x), as_rows(g), as_rows(grad_out)
    rows_grad_x, rows_grad_g = as_rows(grad_x), as_rows(grad_g)
    programs = triton.cdiv(len(rows_x), EPILOGUE_PIXELS)
    partial = rows_x.new_empty((programs, 2 * len(parameters.bias) + 1), dtype=torch.float32)
    hidden = _hidden(rows_x, rows_g, parameters)
    kernels.epilogue_backward[(programs,)](
        rows_grad, grad_alpha, hidden, rows_x, *parameters[3:], rows_grad_x, partial,
        len(rows_x), **_epilogue_constants(x, g, parameters),
    )  # fmt: skip
    rows_grad_x.addmm_(hidden, parameters.weight_x.to(x.dtype))
    torch.addmm(rows_grad[:, x.shape[1] :], hidden, parameters.weight_g.to(x.dtype), out=rows_grad_g)
    copy_rows(rows_grad_x, grad_x)
    copy_rows(rows_grad_g, grad_g)
    return GateParameters(hidden.T @ rows_x, hidden.T @ rows_g, *_sums(partial, len(parameters.bias)))


def _hidden(rows_x: Tensor, rows_g: Tensor, parameters: GateParameters) -> Tensor:
    """(P, F) before ReLU: W_x x + W_g g + b."""
    weight_x, weight_g, bias = (p.to(rows_x.dtype) for p in parameters[:3])
    return torch.addmm(bias, rows_x, weight_x.T).addmm_(rows_g, weight_g.T)


def _strided(x: Tensor) -> tuple[Tensor, int, int, int]:
    """x (a copy only if rows and columns have no common stride) and its strides of image, pixel and channel."""
    height, width = x.shape[2:]
    if height > 1 and width > 1 and x.stride(2) != width * x.stride(3):
        x = x.contiguous()
    return x, x.stride(0), x.stride(3) if width > 1 else x.stride(2), x.stride(1)


def _pixels(x: Tensor) -> int:
    return x.shape[2] * x.shape[3]


def _precision(x: Tensor) -> str:
    return "ieee" if x.dtype == torch.float32 else "tf32"  # ignored for 16-bit numbers


def _widths(x: Tensor, g: Tensor, parameters: GateParameters) -> dict[str, int | str]:
    return {"C": x.shape[1], "G": g.shape[1], "F": len(parameters.bias)}


def _constants(x: Tensor, g: Tensor, parameters: GateParameters, tiling: Tiling) -> dict[str, int | str]:
    blocks = {"BLOCK_P": tiling.pixels, "BLOCK_K": tiling.channels, "BLOCK_F": block_of(len(parameters.bias))}
    return _widths(x, g, parameters) | blocks | {"PRECISION": _precision(x), "num_warps": tiling.warps}


def _epilogue_constants(x: Tensor, g: Tensor, parameters: GateParameters) -> dict[str, int | str]:
    return _widths(x, g, parameters) | {"BLOCK_P": EPILOGUE_PIXELS, "BLOCK_K": EPILOGUE_CHANNELS, "num_warps": 4}
