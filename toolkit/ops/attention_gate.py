"""The attention gate: one signature, several backends, chosen here and nowhere else."""

from typing import Literal, overload

from torch import Tensor

from attunet.errors import InputError
from attunet.ops.reference import attention_gate_reference

BACKENDS = ("auto", "reference")


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
    if backend not in BACKENDS:
        raise InputError(f"backend: must be one of {', '.join(BACKENDS)}, got {backend!r}")
    out, alpha = attention_gate_reference(x, g, weight_x, weight_g, bias, psi_weight, psi_bias)
    return (out, alpha) if return_alpha else out
