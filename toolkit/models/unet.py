"""The U-Net (Ronneberger et al. 2015) with batch norm, padded convolutions and transposed-convolution up-sampling."""

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attunet.errors import InputError
from attunet.models.batch_norm_relu import BatchNormReLU
from attunet.models.network import SegmentationNetwork
from attunet.ops import max_pool


class DoubleConv(nn.Sequential):
    """(N, C_in, H, W) -> (N, C_out, H, W): twice 3x3 convolution, batch norm, ReLU; batch norm has the bias.

    Parameters are named as in a sequence of six layers: the ReLUs (2 and 5) have none.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        layers: dict[str, nn.Module] = {
            "0": nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            "1": BatchNormReLU(out_channels),
            "3": nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            "4": BatchNormReLU(out_channels),
        }
        super().__init__(OrderedDict(layers))


class ResidualConv(nn.Module):
    """(N, C_in, H, W) -> (N, C_out, H, W), C_out >= C_in: a `DoubleConv` to whose second batch norm the input is added
    before the ReLU.

    Channels that the input lacks are zeros (option A of He et al. 2016, "Deep Residual Learning for Image
    Recognition"), so that a residual network has exactly the parameters of a plain one.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.missing_channels = out_channels - in_channels
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.first_norm = BatchNormReLU(out_channels)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.second_norm(self.second(self.first_norm(self.first(x))))
        return nn.functional.relu(residual + nn.functional.pad(x, (0, 0, 0, 0, 0, self.missing_channels)))


@contextmanager
def _running_statistics_kept(module: nn.Module) -> Iterator[None]:
    """Give the batch norms of `module` copies of their running statistics to update, and put the real ones back.

    During recomputation: the first forward pass has already updated the real ones.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d | nn.SyncBatchNorm)]
    kept = [dict(norm.named_buffers()) for norm in norms]
    for norm in norms:
        norm._buffers.update({name: value.clone() for name, value in norm.named_buffers()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)


class UNet(SegmentationNetwork):
    """x (N, in_channels, H, W) -> logits (N, num_classes, H, W); H and W are multiples of 2**depth.

    Level 0 is the finest; level l has base_width * 2**l channels, the bottleneck is level `depth`.

    Args:
        in_channels: channels of a slice.
        num_classes: classes with the background.
        base_width: channels of the finest level.
        depth: number of down-samplings.
        blocks: "plain", or "residual" for residual blocks in the encoder below level 0; both have the same parameters.

    Example:
        >>> UNet(in_channels=1, num_classes=5, base_width=16)(torch.rand(2, 1, 64, 64)).shape
        torch.Size([2, 5, 64, 64])
    """

    kinds_of_blocks = ("plain", "residual")

    def __init__(
        self, *, in_channels: int, num_classes: int, base_width: int, depth: int = 4, blocks: str = "plain"
    ) -> None:
        super().__init__()
        self.depth = depth
        self.activation_checkpointing = False
        self.widths = [base_width * 2**level for level in range(depth + 1)]
        block = ResidualConv if blocks == "residual" else DoubleConv
        self.encoder = nn.ModuleList([DoubleConv(in_channels, base_width)])
        for before, after in itertools.pairwise(self.widths):
            self.encoder.append(block(before, after))
        self.upsample = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in self.widths[:-1])
        self.decoder = nn.ModuleList(DoubleConv(2 * width, width) for width in self.widths[:-1])
        self.head = nn.Conv2d(base_width, num_classes, 1)
        self.coarse_heads = nn.ModuleList()  # of levels 1, 2, ... while the network is trained with deep supervision

    def forward(self, x: Tensor) -> Tensor:
        return self.with_attention(x)[0]

    def with_attention(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        (finest,), attention = self._decoded(x, 1)
        return self.head(finest), attention

    def supervise_coarse_levels(self) -> None:
        """Add heads to the decoder's coarser levels but the coarsest, as nnU-Net does, and always to one."""
        for width in self.widths[1 : max(2, self.depth - 1)]:
            self.coarse_heads.append(nn.Conv2d(width, self.head.out_channels, 1))

    def logits_of_levels(self, x: Tensor) -> tuple[Tensor, ...]:
        features, _ = self._decoded(x, 1 + len(self.coarse_heads))
        return tuple(head(level) for head, level in zip([self.head, *self.coarse_heads], features, strict=True))

    def _decoded(self, x: Tensor, num_levels: int) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Compute the decoder's features at the `num_levels` finest levels, the finest first, and attention maps."""
        self._check_size(x)
        skips = []
        for block in self.encoder[:-1]:
            x = self._maybe_checkpoint(block, block, x)
            skips.append(x)
            x = max_pool(x)
        x = self._maybe_checkpoint(self.encoder[-1], self.encoder[-1], x)
        attention: list[Tensor] = []
        features: list[Tensor] = []
        for level in reversed(range(self.depth)):
            x, alpha = self._maybe_checkpoint(self.decoder[level], self._decode, level, skips[level], x)
            if alpha is not None:
                attention.append(alpha)
            if level < num_levels:
                features.insert(0, x)
        return features, tuple(attention)

    def enable_activation_checkpointing(self) -> None:
        self.activation_checkpointing = True

    def _decode(self, level: int, skip: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute a level's features, and its attention map or None, from its skip and the level below."""
        joined, alpha = self._join(level, skip, self.upsample[level](x))
        return self.decoder[level](joined), alpha

    def _maybe_checkpoint(self, owner: nn.Module, part: Callable[..., Any], *inputs: object) -> Any:
        """Return `part(*inputs)`; with `activation_checkpointing` keep only the inputs and recompute the rest in the
        backward pass.

        owner: the module that has the batch norms of `part`.
        """
        if not (self.activation_checkpointing and self.training and torch.is_grad_enabled()):
            return part(*inputs)
        if torch.compiler.is_compiling():  # the compiler does not recompute operations with side effects
            return checkpoint(part, *inputs, use_reentrant=False)

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _running_statistics_kept(owner)

        return checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)

    def _join(self, level: int, skip: Tensor, g: Tensor) -> tuple[Tensor, Tensor | None]:
        """Join a level's skip `(N, C, H, W)` with the up-sampled features below it, `(N, C, H, W)`, to `(N, 2C, H, W)`;
        with the attention map `(N, 1, H, W)` or None.
        """
        return torch.cat((skip, g), dim=1), None

    def _check_size(self, x: Tensor) -> None:
        multiple = 2**self.depth
        height, width = x.shape[-2:]
        if height % multiple or width % multiple:
            raise InputError(f"input: height and width must be multiples of {multiple}, got {height} x {width}")
