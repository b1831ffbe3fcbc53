"""The choice of a backend: an explicit name is obeyed or refused, `auto` takes the first that applies."""

import os
from collections.abc import Mapping
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from attunet.errors import InputError

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
HAS_TRITON = find_spec("triton") is not None
TRITON_ON_CPU = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's own switch: kernels run through NumPy, for tests


def choose(operation: str, backend: str, obstacles: Mapping[str, str]) -> str:
    """The backend that computes `operation`, which names it in messages.

    Args:
        backend: `auto` or one of the names in `obstacles`.
        obstacles: for each backend why it cannot compute this call, or an empty text; `auto` takes the first without.

    Raises InputError for an unknown name, or a named backend with an obstacle.
    """
    if backend == "auto":
        return next(name for name, obstacle in obstacles.items() if not obstacle)
    if backend not in obstacles:
        raise InputError(f"{operation}: backend must be one of auto, {', '.join([*obstacles][::-1])}, got {backend!r}")
    if obstacles[backend]:
        raise InputError(f"{operation}: backend {backend} {obstacles[backend]}")
    return backend


def custom_operator_obstacle(transformed: bool) -> str:
    """The reason why a custom operator cannot be used now (`transformed`: inside torch.func, or with tangents), or "".

    `torch.onnx.is_in_onnx_export()` and not `torch.compiler.is_exporting()`: in torch 2.11 the second is also true
    inside `torch.compile(fullgraph=True)`.
    """
    if torch.onnx.is_in_onnx_export():
        return "is not for export, which takes standard operators: use auto or reference"
    if transformed:
        return "knows neither torch.func's transforms nor forward-mode derivatives: use auto or reference"
    return ""


def triton_obstacle(x: Tensor) -> str:
    """The reason why Triton kernels cannot take x, or an empty text."""
    if x.dtype not in TRITON_DTYPES:
        return f"takes float32, bfloat16 or float16, got {x.dtype}"
    if not HAS_TRITON:
        return "needs the package triton, which is not installed"
    if TRITON_ON_CPU:
        refused = f"runs in Triton's interpreter (TRITON_INTERPRET=1) on the CPU, got {x.device.type}"
        return "" if x.device.type == "cpu" else refused
    if x.device.type != "cuda" or torch.version.hip:
        return f"needs a tensor on an NVIDIA GPU, got {x.device.type}"
    if torch.cuda.get_device_properties(x.device).major < 8:
        return "needs a GPU of compute capability 8.0 or later"
    return ""


def check_parameter(operation: str, name: str, parameter: Tensor, shape: tuple[int, ...], x: Tensor) -> None:
    """Raises InputError unless a parameter has the shape, the dtype of x or float32, and the device of x.

    Example:
        >>> check_parameter("attention_gate", "bias", torch.zeros(4), (4,), x)  # doctest: +SKIP
    """
    if tuple(parameter.shape) != shape:
        raise InputError(f"{operation}: {name} must be of shape {shape}, got {tuple(parameter.shape)}")
    if parameter.dtype not in (x.dtype, torch.float32):
        raise InputError(f"{operation}: {name} must be {x.dtype} or float32, got {parameter.dtype}")
    if parameter.device != x.device:
        raise InputError(f"{operation}: {name} must be on {x.device}, got {parameter.device}")


def are_transformed(*tensors: Tensor | None) -> bool:
    """True inside vmap, grad, jvp and the like, or with a tangent: torch.library's operators would ignore them."""
    if torch.compiler.is_compiling():
        return False
    duals = (unpack_dual(t) for t in tensors if t is not None)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return torch._C._are_functorch_transforms_active() or any(dual.tangent is not None for dual in duals)
