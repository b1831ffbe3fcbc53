"""The attention gate in plain torch: the specification that every other backend is tested against."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d


class GateParameters(NamedTuple):
    """The parameters of one gate with C skip channels, G gating channels and F hidden channels."""

    weight_x: Tensor  # (F, C)
    weight_g: Tensor  # (F, G)
    bias: Tensor  # (F,)
    psi_weight: Tensor  # (F,)
    psi_bias: Tensor  # (1,)


def attention_gate_reference(x: Tensor, g: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
    """alpha = sigmoid(psi . relu(W_x x + W_g g + b) + b_psi); out = concat(alpha * x, g).

    x (N, C, H, W), g (N, G, H, W) and the five of `GateParameters`, which are rounded to the dtype of x as autocast
    would, give out (N, C + G, H, W) and alpha (N, 1, H, W).
    """
    weight_x, weight_g, bias, psi_weight, psi_bias = (p.to(x.dtype) for p in parameters)
    hidden = torch.relu(conv2d(x, weight_x[:, :, None, None], bias) + conv2d(g, weight_g[:, :, None, None]))
    alpha = torch.sigmoid(conv2d(hidden, psi_weight[None, :, None, None], psi_bias))
    return torch.cat((alpha * x, g), dim=1), alpha
