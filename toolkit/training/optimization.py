"""The network on its device, the moving average of its weights, optimizer, learning rate and class weights."""

import copy
import math
from collections import defaultdict
from collections.abc import Collection

import torch
from torch import nn

from attunet.config import OptimConfig, ResolvedConfig, ResolvedOptimConfig, RunConfig
from attunet.errors import InputError
from attunet.loading.loader import Loader
from attunet.models import SegmentationNetwork
from attunet.models.batch_norm_relu import synchronize_batch_norms
from attunet.models.network import LogitsOfLevels

PEAK_SHARE = 0.7  # of the steps of the trapezoid, until the learning rate falls
MIN_DRAWN_SHARE = 0.25  # partial labels multiply a class's weight, or the number of steps, by at most the inverse


def peak_rate(optim: ResolvedOptimConfig) -> float:
    """Return the peak learning rate: `lr` times the square root of `batch_size` over `lr_reference_batch`.

    The square root is the rule for Adam and its kin (Malladi et al. 2022, "On the SDEs and Scaling Rules for Adaptive
    Gradient Algorithms"); the linear one is for SGD. The decay of the moments is not scaled. `lr_reference_batch` 0
    turns the rule off.
    """
    if optim.lr_reference_batch == 0:
        return optim.lr
    return optim.lr * math.sqrt(optim.batch_size / optim.lr_reference_batch)


def learning_rate(step: int, total_steps: int, optim: ResolvedOptimConfig) -> float:
    """Return the learning rate of a step in `[0, total_steps)`: a linear rise to the peak over `warmup_fraction`,
    then the schedule.

    one_cycle: cosine from the peak to zero (Smith & Topin 2018); poly: `(1 - t)^0.9` (as nnU-Net); constant: the peak;
    trapezoid: the peak for PEAK_SHARE of the steps, then `1 - sqrt(t)` (Hägele et al. 2024, "Scaling Laws and
    Compute-Optimal Training Beyond Fixed Training Durations").
    """
    warmup, peak = round(optim.warmup_fraction * total_steps), peak_rate(optim)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total_steps - warmup)
    if optim.schedule == "one_cycle":
        return peak * 0.5 * (1 + math.cos(math.pi * progress))
    if optim.schedule == "poly":
        return float(peak * (1 - progress) ** 0.9)
    fall = max(warmup, round(PEAK_SHARE * total_steps))
    if optim.schedule == "trapezoid" and step >= fall:
        return peak * (1 - math.sqrt((step - fall) / (total_steps - fall)))
    return peak


class AveragedNetwork:
    """Exponential moving average of a network's weights and batch-norm statistics, kept in a copy, `network`.

    Averaging the statistics with the same decay keeps them matched to the weights. The decay starts low,
    `min(decay, (1 + t) / (10 + t))`, so that the initial weights soon lose their influence.
    `torch.optim.swa_utils.AveragedModel` with a custom average function would be as long; this class updates all
    tensors in one call.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        current = network.state_dict(keep_vars=True)
        pairs = [(average, current[name]) for name, average in self.network.state_dict().items()]
        self._floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the network after optimizer step number `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, current = (list(side) for side in zip(*self._floating, strict=True))
        torch._foreach_lerp_(averages, current, 1 - decay)
        for average, value in self._counters:
            average.copy_(value)


def memory_format(run: RunConfig) -> torch.memory_format:
    return torch.channels_last if run.channels_last else torch.contiguous_format


def place_network(
    network: SegmentationNetwork, config: ResolvedConfig, device: torch.device
) -> tuple[nn.Module, AveragedNetwork]:
    """Move a network to the device and prepare it for training, in place.

    Returns:
        The module to train, whose forward pass gives the logits, or those of all supervised levels; and the average,
        which has neither the heads of coarse levels nor synchronised batch norm.
    """
    layout = memory_format(config.run)
    if config.run.activation_checkpointing:
        network.enable_activation_checkpointing()
    network.to(device=device, memory_format=layout)  # type: ignore[call-overload]  # torch's stubs lack it
    average, model = AveragedNetwork(network, config.optim.ema_decay), network
    if config.model.deep_supervision:
        network.supervise_coarse_levels()
        model = LogitsOfLevels(network).to(device=device, memory_format=layout)  # type: ignore[call-overload]
    if config.run.sync_batch_norm:
        synchronize_batch_norms(network)
    return model, average


def make_optimizer(network: nn.Module, optim: OptimConfig, carried: Collection[str] = ()) -> torch.optim.Optimizer:
    """Make AdamW over all trainable parameters, without weight decay on biases and batch-norm scales.

    Parameters of one dimension are biases and scales. The trainer skips steps through `found_inf`, which only the fused
    implementation reads. Each group's `lr_factor` is the factor of its learning rate: `optim.init_lr_factor` for the
    parameters named in `carried`, which start from another model.
    """
    members: dict[tuple[bool, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            members[name in carried and optim.init_lr_factor != 1, parameter.ndim == 1].append(parameter)
    groups = []
    for (is_carried, is_flat), parameters in sorted(members.items()):
        decay, factor = 0.0 if is_flat else optim.weight_decay, optim.init_lr_factor if is_carried else 1.0
        groups.append({"params": parameters, "weight_decay": decay, "lr_factor": factor})
    return torch.optim.AdamW(groups, lr=optim.lr, fused=True)


def freeze(network: nn.Module, part: str, carried: Collection[str]) -> list[nn.Module]:
    """Freeze the parameters of a part of a network, `optim.freeze`, that are named in `carried`. Others, such as a
    first convolution for other channels, are not the parent's as they were, and are trained.

    Returns:
        The frozen modules, which must stay in eval mode so that their batch-norm statistics stay too.

    Raises:
        InputError: the network has no such part, or starts from no other model.
    """
    if part == "none":
        return []
    modules = getattr(network, part, None)
    if not isinstance(modules, nn.Module):
        raise InputError(f"optim.freeze: {type(network).__name__} has no {part}")
    if not carried:
        raise InputError(f"optim.freeze: needs weights to keep (--init), got {part} for a network with fresh weights")
    for name, parameter in network.named_parameters():
        if name in carried and name.startswith(f"{part}."):
            parameter.requires_grad_(False)
    return [modules]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of each group to `rate` times the group's factor, in place where it is a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate * group["lr_factor"])
        else:
            group["lr"] = rate * group["lr_factor"]


def make_capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Prepare the optimizer for a CUDA graph: the learning rate becomes a tensor on the device."""
    for group in optimizer.param_groups:
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)
        group["capturable"] = device.type == "cuda"


def class_weights(optim: OptimConfig, loader: Loader) -> torch.Tensor | None:
    """Weights of the classes in the cross entropy, `(K,)` on the loader's device; None for equal weights.

    With partial labels, the weight of a class is divided by the share of slices that it was drawn in (not below
    MIN_DRAWN_SHARE), so that its pixels count as much as with all labels.
    """
    shares = loader.drawn_shares()
    if optim.class_weights == "none":
        return None if shares is None else 1 / shares.clamp_min(MIN_DRAWN_SHARE)
    weights = 1 / loader.class_frequencies().clamp_min(1e-6).to(loader.device)
    return weights if shares is None else weights / shares.clamp_min(MIN_DRAWN_SHARE)
