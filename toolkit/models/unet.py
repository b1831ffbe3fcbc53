"""The U-Net (Ronneberger et al. 2015) with batch norm, padded convolutions and transposed-convolution up-sampling."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attunet.errors import InputError
from attunet.models.network import SegmentationNetwork


class DoubleConv(nn.Sequential):
    """(N, C_in, H, W) -> (N, C_out, H, W): twice 3x3 convolution, batch norm, ReLU; batch norm has the bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


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
    """

    def __init__(self, *, in_channels: int, num_classes: int, base_width: int, depth: int = 4) -> None:
        super().__init__()
        self.depth = depth
        self.activation_checkpointing = False
        self.widths = [base_width * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(
            DoubleConv(before, after) for before, after in zip([in_channels, *self.widths], self.widths, strict=False)
        )
        self.upsample = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in self.widths[:-1])
        self.decoder = nn.ModuleList(DoubleConv(2 * width, width) for width in self.widths[:-1])
        self.head = nn.Conv2d(base_width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            x: slices `(N, in_channels, H, W)`; H and W are multiples of `2**depth`.

        Returns:
            Logits `(N, num_classes, H, W)`.

        Raises:
            InputError: height or width is not such a multiple.
        """
        return self.with_attention(x)[0]

    def with_attention(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        self._check_size(x)
        skips = []
        for block in self.encoder[:-1]:
            x = self._maybe_checkpoint(block, block, x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self._maybe_checkpoint(self.encoder[-1], self.encoder[-1], x)
        attention = []
        for level in reversed(range(self.depth)):
            x, alpha = self._maybe_checkpoint(self.decoder[level], self._decode, level, skips[level], x)
            if alpha is not None:
                attention.append(alpha)
        return self.head(x), tuple(attention)

    def enable_activation_checkpointing(self) -> None:
        self.activation_checkpointing = True

    def _decode(self, level: int, skip: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute a level's features, and its attention map or None, from its skip and the features of the level below."""
        joined, alpha = self.join(level, skip, self.upsample[level](x))
        return self.decoder[level](joined), alpha

    def _maybe_checkpoint(self, owner: nn.Module, part: Callable[..., Any], *inputs: Any) -> Any:
        """Return `part(*inputs)`; with `activation_checkpointing` keep only the inputs and recompute the rest in the backward pass.

        owner: the module that has the batch norms of `part`.
        """
        if not (self.activation_checkpointing and self.training and torch.is_grad_enabled()):
            return part(*inputs)
        if torch.compiler.is_compiling():  # the compiler does not recompute operations with side effects
            return checkpoint(part, *inputs, use_reentrant=False)

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _running_statistics_kept(owner)

        return checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)

    def join(self, level: int, skip: Tensor, g: Tensor) -> tuple[Tensor, Tensor | None]:
        """Join skip and up-sampled features g, both `(N, C, H, W)`, to `(N, 2C, H, W)`; the second result is an attention map or None."""
        return torch.cat((skip, g), dim=1), None

    def _check_size(self, x: Tensor) -> None:
        multiple = 2**self.depth
        height, width = x.shape[-2:]
        if height % multiple or width % multiple:
            raise InputError(f"input: height and width must be multiples of {multiple}, got {height} x {width}")
