"""Learning rate as a function of the step, optimizer, class weights and the moving average of the weights."""

import copy
import math

import torch
from torch import nn

from attunet.config import OptimConfig, ResolvedOptimConfig
from attunet.loading.loader import Loader


def peak_rate(optim: ResolvedOptimConfig) -> float:
    """The highest rate of a training whose `batch_size` is settled: `lr` times the square root of the batch over its reference.

    The square root is the rule for Adam and its kin (Malladi et al. 2022, "On the SDEs and Scaling Rules for Adaptive Gradient
    Algorithms"); the linear one is for SGD. Their moments' decay is left alone here. `lr_reference_batch` 0 turns the rule off.
    """
    if optim.lr_reference_batch == 0:
        return optim.lr
    return optim.lr * math.sqrt(optim.batch_size / optim.lr_reference_batch)


def learning_rate(step: int, total_steps: int, optim: ResolvedOptimConfig) -> float:
    """Rate of a step in `[0, total_steps)`: a linear rise to the peak over `warmup_fraction`, then the schedule.

    one_cycle: cosine from the peak to zero (Smith & Topin 2018); poly: `(1 - t)^0.9` (as nnU-Net); constant: the peak.
    """
    warmup, peak = round(optim.warmup_fraction * total_steps), peak_rate(optim)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total_steps - warmup)
    if optim.schedule == "one_cycle":
        return peak * 0.5 * (1 + math.cos(math.pi * progress))
    if optim.schedule == "poly":
        return peak * (1 - progress) ** 0.9
    return peak


class AveragedNetwork:
    """Keeps `network`, a copy whose weights and batch-norm statistics follow the trained network's.

    Averaging the statistics with the same decay as the weights keeps the two matched. The decay starts low,
    `min(decay, (1 + t) / (10 + t))`, so that the first steps are forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        mine, theirs = self.network.state_dict(), network.state_dict(keep_vars=True)
        self._floating = [(mine[name], theirs[name]) for name in mine if mine[name].is_floating_point()]
        self._counters = [(mine[name], theirs[name]) for name in mine if not mine[name].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the network after the optimizer's step number `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        mine, theirs = (list(side) for side in zip(*self._floating, strict=True))
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        for average, current in self._counters:
            average.copy_(current)


def _make_optimizer(network: nn.Module, optim: OptimConfig) -> torch.optim.Optimizer:
    parameters = list(network.parameters())
    # Biases and batch-norm scales are not decayed: they have one dimension.
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=optim.lr, fused=True)


def _class_weights(optim: OptimConfig, loader: Loader, num_classes: int, device: torch.device) -> torch.Tensor | None:
    if optim.class_weights == "none":
        return None
    return 1 / loader.class_frequencies(num_classes).clamp_min(1e-6).to(device)
