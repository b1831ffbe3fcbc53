"""Learning rate as a function of the step."""

import math

from attunet.config import OptimConfig


def learning_rate(step: int, total_steps: int, optim: OptimConfig) -> float:
    """Rate of a step in `[0, total_steps)`: a linear rise over `warmup_fraction`, then the schedule.

    one_cycle: cosine from the peak to zero (Smith & Topin 2018); poly: `(1 - t)^0.9` (as nnU-Net); constant: the peak.
    """
    warmup = round(optim.warmup_fraction * total_steps)
    if step < warmup:
        return optim.lr * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total_steps - warmup)
    if optim.schedule == "one_cycle":
        return optim.lr * 0.5 * (1 + math.cos(math.pi * progress))
    if optim.schedule == "poly":
        return optim.lr * (1 - progress) ** 0.9
    return optim.lr
