"""The attention gate in plain torch: the specification that every other backend is tested against."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d


def attention_gate_reference(
    x: Tensor, g: Tensor, weight_x: Tensor, weight_g: Tensor, bias: Tensor, psi_weight: Tensor, psi_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """alpha = sigmoid(psi . relu(W_x x + W_g g + b) + b_psi); out = concat(alpha * x, g).

    x (N, C, H, W), g (N, G, H, W), weight_x (F, C), weight_g (F, G), bias (F,), psi_weight (F,), psi_bias (1,);
    returns out (N, C + G, H, W) and alpha (N, 1, H, W). Parameters are rounded to the dtype of x, as autocast would.
    """
    weight_x, weight_g, bias, psi_weight, psi_bias = (p.to(x.dtype) for p in (weight_x, weight_g, bias, psi_weight, psi_bias))
    hidden = torch.relu(conv2d(x, weight_x[:, :, None, None], bias) + conv2d(g, weight_g[:, :, None, None]))
    alpha = torch.sigmoid(conv2d(hidden, psi_weight[None, :, None, None], psi_bias))
    return torch.cat((alpha * x, g), dim=1), alpha
