"""The networks: slices (N, in_channels, H, W) to logits (N, num_classes, H, W)."""

import importlib

from attunet.config import MODELS, ModelConfig
from attunet.errors import InputError
from attunet.models.attention_unet import AttentionGate, AttentionUNet
from attunet.models.network import SegmentationNetwork
from attunet.models.unet import UNet

__all__ = ["MODELS", "AttentionGate", "AttentionUNet", "SegmentationNetwork", "UNet", "build_model"]


def build_model(model: ModelConfig, in_channels: int, num_classes: int) -> SegmentationNetwork:
    """Build the network that a configuration names, with fresh weights from torch's global generator.

    Args:
        model: the `[model]` section; `base_width` must be a number, not "auto".
        in_channels: channels of a slice: `PreprocessSpec.in_channels`.
        num_classes: classes with the background.

    Returns:
        The network on the CPU, in training mode, without the heads of deep supervision.

    Raises:
        InputError: the network does not have these blocks.
    """
    module, _, name = MODELS[model.name].partition(":")
    make = getattr(importlib.import_module(module), name)
    blocks = {} if model.blocks == "plain" else {"blocks": model.blocks}
    if model.blocks not in getattr(make, "kinds_of_blocks", ("plain",)):
        raise InputError(f"model.blocks: {name} has no {model.blocks} blocks; set it to plain")
    network = make(
        in_channels=in_channels, num_classes=num_classes, base_width=model.base_width, depth=model.depth, **blocks
    )
    if not isinstance(network, SegmentationNetwork):
        raise TypeError(
            f"{MODELS[model.name]}: a network of MODELS must be a subclass of attunet.models.SegmentationNetwork"
        )
    return network
