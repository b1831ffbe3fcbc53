"""The Attention U-Net (Oktay et al. 2018): the U-Net with a gate on every skip."""

import math

import torch
from torch import Tensor, nn

from attunet.models.unet import UNet
from attunet.ops import attention_gate


class AttentionGate(nn.Module):
    """The parameters of one gate; `attunet.ops.attention_gate` computes it. The hidden width is half of the skip's.

    Args:
        channels: channels C of the skip x.
        gating_channels: channels G of the gating signal g.
    """

    backend = "auto"  # or another name that `attention_gate` takes

    def __init__(self, channels: int, gating_channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 2)
        self.weight_x = nn.Parameter(_uniform(hidden, channels))
        self.weight_g = nn.Parameter(_uniform(hidden, gating_channels))
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.psi_weight = nn.Parameter(_uniform(hidden))
        self.psi_bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """Gate the skip x `(N, C, H, W)` with g `(N, G, H, W)`.

        Returns:
            `concat(alpha * x, g)` `(N, C + G, H, W)` and alpha `(N, 1, H, W)`.
        """
        parameters = self.weight_x, self.weight_g, self.bias, self.psi_weight, self.psi_bias
        return attention_gate(x, g, *parameters, backend=self.backend, return_alpha=True)


def _uniform(*shape: int) -> Tensor:
    """Draw weights as torch does for a 1x1 convolution: uniform within 1 / sqrt(fan in), the last dimension."""
    bound = 1 / math.sqrt(shape[-1])
    return torch.empty(shape).uniform_(-bound, bound)


class AttentionUNet(UNet):
    """A `UNet` with an attention gate on every skip, and no other difference.

    The gates are made last, so that with one seed both networks start from the same encoder and decoder weights.

    Args:
        in_channels, num_classes, base_width, depth, blocks: as for `UNet`.

    Example:
        >>> AttentionUNet(in_channels=1, num_classes=5, base_width=16)(torch.rand(2, 1, 64, 64)).shape
        torch.Size([2, 5, 64, 64])
    """

    def __init__(
        self, *, in_channels: int, num_classes: int, base_width: int, depth: int = 4, blocks: str = "plain"
    ) -> None:
        super().__init__(
            in_channels=in_channels, num_classes=num_classes, base_width=base_width, depth=depth, blocks=blocks
        )
        self.gates = nn.ModuleList(AttentionGate(width, width) for width in self.widths[:-1])
        self.num_gates = len(self.gates)

    def _join(self, level: int, skip: Tensor, g: Tensor) -> tuple[Tensor, Tensor | None]:
        joined, alpha = self.gates[level](skip, g)
        return joined, alpha
