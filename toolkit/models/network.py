"""The interface that every network of the `MODELS` table has."""

from torch import Tensor, nn

from attunet.errors import InputError


class SegmentationNetwork(nn.Module):
    """Base class: a subclass is made as `Class(in_channels=, num_classes=, base_width=, depth=)` and its `forward` maps
    slices `(N, in_channels, H, W)` to logits `(N, num_classes, H, W)`, with H and W multiples of 16.
    """

    num_gates: int = 0  # attention gates; 0 for a network without attention maps
    # Values of `model.blocks`; a class with others takes an argument `blocks`
    kinds_of_blocks: tuple[str, ...] = ("plain",)

    def with_attention(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute logits `(N, num_classes, H, W)` of slices, and `num_gates` maps `(N, 1, h, w)`, deepest first."""
        return self(x), ()

    def supervise_coarse_levels(self) -> None:
        """Add the heads that deep supervision trains, in place; only `logits_of_levels` computes them.

        Raises:
            InputError: the network does not support it.
        """
        raise InputError(f"model.deep_supervision: {type(self).__name__} does not support it; set it to false")

    def logits_of_levels(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute logits `(N, num_classes, H / 2**i, W / 2**i)` of levels i = 0, 1, ..., for deep supervision."""
        return (self(x),)

    def enable_activation_checkpointing(self) -> None:
        """Recompute activations in the backward pass instead of keeping them.

        Raises:
            InputError: the network does not support it.
        """
        raise InputError(f"run.activation_checkpointing: {type(self).__name__} does not support it; set it to false")


class LogitsOfLevels(nn.Module):
    """A network whose forward pass gives the logits of all levels; wrappers such as DDP call `forward` alone."""

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.network.logits_of_levels(x)
