"""The networks: slices (N, in_channels, H, W) to logits (N, num_classes, H, W)."""

from attunet.errors import InputError
from attunet.models.attention_unet import AttentionGate, AttentionUNet
from attunet.models.unet import UNet

__all__ = ["AttentionGate", "AttentionUNet", "UNet", "build_model"]


def build_model(name: str, *, in_channels: int, num_classes: int, base_width: int, depth: int = 4) -> UNet:
    """`unet` or `attention_unet`; any other name is an InputError."""
    models: dict[str, type[UNet]] = {"unet": UNet, "attention_unet": AttentionUNet}
    if name not in models:
        raise InputError(f"model.name: must be one of {', '.join(models)}, got {name!r}")
    return models[name](in_channels=in_channels, num_classes=num_classes, base_width=base_width, depth=depth)
