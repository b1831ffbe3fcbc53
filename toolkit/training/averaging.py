"""Exponential moving average of the weights: what validation sees and what is exported."""

import copy

import torch
from torch import nn


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
