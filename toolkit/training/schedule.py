"""Learning rate as a function of the step."""

import math

from attunet.config import OptimConfig


def peak_rate(optim: OptimConfig) -> float:
    """The highest rate of a training whose `batch_size` is settled: `lr` times the square root of the batch over its reference.

    The square root is the rule for Adam and its kin (Malladi et al. 2022, "On the SDEs and Scaling Rules for Adaptive Gradient
    Algorithms"); the linear one is for SGD. Their moments' decay is left alone here. `lr_reference_batch` 0 turns the rule off.
    """
    if optim.lr_reference_batch == 0:
        return optim.lr
    return optim.lr * math.sqrt(optim.batch_size / optim.lr_reference_batch)


def learning_rate(step: int, total_steps: int, optim: OptimConfig) -> float:
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
