"""The attention gate: one signature, several backends, chosen here and nowhere else."""

import os
from importlib.util import find_spec
from typing import Literal, overload

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from attunet.errors import InputError
from attunet.ops.reference import attention_gate_reference
from attunet.ops.registration import gate_cpu, gate_triton

BACKENDS = ("auto", "reference", "cpu", "triton")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
HAS_TRITON = find_spec("triton") is not None
TRITON_ON_CPU = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's own switch: kernels run through NumPy, for tests


@overload
def attention_gate(
    x: Tensor, g: Tensor, weight_x: Tensor, weight_g: Tensor, bias: Tensor, psi_weight: Tensor, psi_bias: Tensor,
    *, backend: str = ..., return_alpha: Literal[False] = ...,
) -> Tensor: ...  # fmt: skip


@overload
def attention_gate(
    x: Tensor, g: Tensor, weight_x: Tensor, weight_g: Tensor, bias: Tensor, psi_weight: Tensor, psi_bias: Tensor,
    *, backend: str = ..., return_alpha: Literal[True],
) -> tuple[Tensor, Tensor]: ...  # fmt: skip


def attention_gate(
    x: Tensor,
    g: Tensor,
    weight_x: Tensor,
    weight_g: Tensor,
    bias: Tensor,
    psi_weight: Tensor,
    psi_bias: Tensor,
    *,
    backend: str = "auto",
    return_alpha: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """alpha = sigmoid(psi . relu(W_x x + W_g g + b) + b_psi); out = concat(alpha * x, g).

    Skip x (N, C, H, W) and gating signal g (N, G, H, W) of one dtype (float16, bfloat16, float32 or float64) and device; weight_x
    (F, C), weight_g (F, G), bias (F,), psi_weight (F,) and psi_bias (1,) of that dtype or float32. N may be 0, the other sizes not.
    Returns out (N, C + G, H, W), with `return_alpha` also alpha (N, 1, H, W). Under autocast x and g are cast as a convolution's
    inputs are.

    Backends: `reference`, plain torch, any device, also torch.func and forward-mode derivatives; `cpu`, by blocks of pixels; `triton`,
    fused kernels for CUDA in float32, bfloat16 and float16. The last two keep only the inputs for the backward pass. `auto` takes
    `triton` or `cpu` where they apply and `reference` elsewhere; a backend asked for by name that does not apply is an InputError.
    """
    _check_dtypes(x, g)
    if x.device.type != "meta" and torch.is_autocast_enabled(x.device.type):
        x, g = (t if t.dtype == torch.float64 else t.to(torch.get_autocast_dtype(x.device.type)) for t in (x, g))
    parameters = (weight_x, weight_g, bias, psi_weight, psi_bias)
    _check(x, g, *parameters)
    chosen = choose_backend(x, backend, transformed=_are_transformed(x, g, *parameters))
    gate = {"reference": attention_gate_reference, "cpu": gate_cpu, "triton": gate_triton}[chosen]
    out, alpha = gate(x, g, *parameters)
    return (out, alpha) if return_alpha else out


def choose_backend(x: Tensor, backend: str = "auto", *, transformed: bool = False) -> str:
    """The name of the backend that computes a gate on x, `transformed` by torch.func or not; InputError where the one asked for cannot."""
    if backend not in BACKENDS:
        raise InputError(f"attention_gate: backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    either = _obstacle_of_both(transformed)
    obstacles = {"reference": "", "cpu": either or _cpu_obstacle(x), "triton": either or _triton_obstacle(x)}
    if backend == "auto":
        return next(name for name in ("triton", "cpu", "reference") if not obstacles[name])
    if obstacles[backend]:
        raise InputError(f"attention_gate: backend {backend} {obstacles[backend]}")
    return backend


def _obstacle_of_both(transformed: bool) -> str:
    if torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export():
        return "is not for export, which takes standard operators: use auto or reference"
    return "knows neither torch.func's transforms nor forward-mode derivatives: use auto or reference" if transformed else ""


def _cpu_obstacle(x: Tensor) -> str:
    return "" if x.device.type == "cpu" else f"takes tensors on the CPU, got {x.device.type}"


def _triton_obstacle(x: Tensor) -> str:
    if x.dtype not in TRITON_DTYPES:
        return f"takes float32, bfloat16 or float16, got {x.dtype}"
    if not HAS_TRITON:
        return "needs the package triton, which is not installed"
    if TRITON_ON_CPU:
        return "" if x.device.type == "cpu" else f"runs in Triton's interpreter (TRITON_INTERPRET=1) on the CPU, got {x.device.type}"
    if x.device.type != "cuda" or torch.version.hip:
        return f"needs a tensor on an NVIDIA GPU, got {x.device.type}"
    if torch.cuda.get_device_properties(x.device).major < 8:
        return "needs a GPU of compute capability 8.0 or later"
    return ""


def _are_transformed(*tensors: Tensor) -> bool:
    """Inside vmap, grad, jvp and the like, or with tangents: torch.library's operations would drop those, or fail without saying why."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or any(unpack_dual(t).tangent is not None for t in tensors)


def _check_dtypes(x: Tensor, g: Tensor) -> None:
    """Before autocast, which would round integers to numbers."""
    for name, tensor in {"x": x, "g": g}.items():
        if tensor.dtype not in DTYPES:
            raise InputError(f"attention_gate: {name} must be {', '.join(map(str, DTYPES))}, got {tensor.dtype}")


def _check(x: Tensor, g: Tensor, weight_x: Tensor, weight_g: Tensor, bias: Tensor, psi_weight: Tensor, psi_bias: Tensor) -> None:
    if x.dim() != 4 or g.dim() != 4 or x.shape[0] != g.shape[0] or x.shape[2:] != g.shape[2:]:
        raise InputError(f"attention_gate: x and g must be (N, C, H, W) and (N, G, H, W), got {tuple(x.shape)} and {tuple(g.shape)}")
    if 0 in (*x.shape[1:], *g.shape[1:], *bias.shape):
        raise InputError(f"attention_gate: only N may be 0, got x {tuple(x.shape)}, g {tuple(g.shape)} and bias {tuple(bias.shape)}")
    hidden = bias.shape[0] if bias.dim() else 0
    expected = {
        "weight_x": (weight_x, (hidden, x.shape[1])),
        "weight_g": (weight_g, (hidden, g.shape[1])),
        "bias": (bias, (hidden,)),
        "psi_weight": (psi_weight, (hidden,)),
        "psi_bias": (psi_bias, (1,)),
    }
    for name, (parameter, shape) in expected.items():
        if tuple(parameter.shape) != shape:
            raise InputError(f"attention_gate: {name} must be of shape {shape}, got {tuple(parameter.shape)}")
        if parameter.dtype not in (x.dtype, torch.float32):
            raise InputError(f"attention_gate: {name} must be {x.dtype} or float32, got {parameter.dtype}")
        if parameter.device != x.device:
            raise InputError(f"attention_gate: {name} must be on {x.device}, got {parameter.device}")
    if g.dtype != x.dtype or g.device != x.device:
        found = f"{x.dtype} on {x.device} and {g.dtype} on {g.device}"
        raise InputError(f"attention_gate: x and g must be of one dtype on one device, got {found}")
