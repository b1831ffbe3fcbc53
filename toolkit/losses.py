"""Dice and cross entropy from sums, so that many processes compute the loss of the global batch.

The network's output is first reduced to a short vector of sums (`segmentation_sums`), the sums are added over the
processes (`add_over_processes`), and only then divided (`loss_of`): averages of averages never appear.
"""

from dataclasses import dataclass

import torch
import torch.distributed as distributed
import torch.nn.functional as F

from attunet.classes import IGNORE_LABEL
from attunet.config import OptimConfig

SMOOTH = 1e-5  # in the Dice quotient, as in nnU-Net


@dataclass(frozen=True)
class Loss:
    """Scalars on the device: `total` is the weighted sum of the two parts."""

    total: torch.Tensor
    dice: torch.Tensor
    cross_entropy: torch.Tensor


def segmentation_sums(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: torch.Tensor | None = None,
    drawn: torch.Tensor | None = None,
) -> torch.Tensor:
    """Reduce a batch to the sums that its loss is a function of.

    With `drawn`, the loss is marginal (Fang & Yan 2020, "Multi-Organ Segmentation Over Partially Labeled Datasets With
    Multi-Scale Feature Abstraction"; Shi et al. 2021, "Marginal loss and exclusion loss for partially supervised
    multi-organ segmentation"): a pixel of label 0 means "background or a class that was not drawn", and its probability
    is the sum over these classes. Slices count in the Dice sums of the classes that were drawn in them alone.

    Args:
        logits: `(N, K, H, W)`.
        labels: `(N, H, W)` uint8 class indices; pixels of `IGNORE_LABEL` count nowhere.
        class_weights: `(K,)` weights in the cross entropy.
        drawn: `(N, K)` bool, the classes that were drawn in each slice, the background always; None if all were.

    Returns:
        `(2 + 3 K,)` float32 (float64 for float64 logits): cross entropy, its weight, then intersection, prediction and
        truth per class.
    """
    num_classes = logits.shape[1]
    log_probability = F.log_softmax(logits.float() if logits.dtype != torch.float64 else logits, dim=1)
    truth = labels[:, None] == torch.arange(num_classes, dtype=labels.dtype, device=labels.device)[:, None, None]
    valid = (labels != IGNORE_LABEL)[:, None]
    weights = torch.ones(num_classes, device=logits.device) if class_weights is None else class_weights
    over = (0, 2, 3)
    probability = log_probability.exp() * valid
    if drawn is not None:
        log_probability = _with_marginal_background(log_probability, drawn)
        counted = drawn[:, :, None, None]
        probability, truth = probability * counted, truth & counted
    per_class_entropy = -torch.where(truth, log_probability, 0.0).sum(over)
    per_class_truth = truth.sum(over).to(log_probability.dtype)
    intersection = torch.where(truth, probability, 0.0).sum(over)
    totals = torch.stack([(weights * per_class_entropy).sum(), (weights * per_class_truth).sum()])
    return torch.cat([totals, intersection, probability.sum(over), per_class_truth])


def _with_marginal_background(log_probability: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Replace the background's log probability by that of "background or a class that was not drawn"."""
    not_background = drawn.clone()
    not_background[:, 0] = False
    may_be_background = log_probability.masked_fill(not_background[:, :, None, None], -torch.inf)
    background = may_be_background.logsumexp(dim=1, keepdim=True)
    return torch.cat([background, log_probability[:, 1:]], dim=1)


def add_over_processes(sums: torch.Tensor) -> torch.Tensor:
    """Add the sums over all processes; the gradient flows into this process's share alone.

    Every process then differentiates the same global loss by its own samples, and adding the gradients over the
    processes gives the gradient of the global loss. DistributedDataParallel averages instead of adding, so the loss is
    scaled by the number of processes.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return sums
    total = sums.detach().clone()
    distributed.all_reduce(total)
    return sums + (total - sums.detach())


def loss_of(sums: torch.Tensor, optim: OptimConfig) -> Loss:
    """Compute the loss of training and validation: logarithmic Dice of the foreground classes plus cross entropy.

    The Dice quotient is taken over all pixels of the batch (as in nnU-Net); its negative logarithm (Wong et al. 2018,
    "3D Segmentation with Exponential Logarithmic Loss", with exponent 1) divides the gradient of each class by the Dice
    that it has reached. Without the logarithm, a small organ next to its mirror image (the left kidney of CHAOS) is not
    learnt in the first 25 epochs. `sums` are those of `segmentation_sums`, added over batches and processes.
    """
    cross_entropy = sums[0] / sums[1].clamp_min(1.0)
    intersection, prediction, truth = sums[2:].reshape(3, -1)[:, 1:]
    quotient = (2 * intersection + SMOOTH) / (prediction + truth + SMOOTH)
    present = truth > 0
    dice = -torch.where(present, quotient, 1.0).log().sum() / present.sum().clamp_min(1)
    return Loss(optim.dice_weight * dice + optim.cross_entropy_weight * cross_entropy, dice, cross_entropy)


def labels_of_level(labels: torch.Tensor, level: int) -> torch.Tensor:
    """Sample labels `(N, H, W)` to `(N, H / 2**level, W / 2**level)` by the nearest pixel."""
    step = 2**level
    return labels[:, step // 2 :: step, step // 2 :: step]


def loss_of_levels(sums: torch.Tensor, optim: OptimConfig) -> Loss:
    """Compute the loss of deep supervision: the mean over levels i with the weights 1 / 2**i, as nnU-Net does.

    `sums` `(L, 2 + 3 K)` are those of `segmentation_sums` at each level, added over batches and processes. The two
    parts of the loss are those of level 0 alone; for one level it is that of `loss_of`.
    """
    losses = [loss_of(level, optim) for level in sums.unbind()]
    weighted = torch.stack([0.5**level * loss.total for level, loss in enumerate(losses)]).sum()
    total = weighted / sum(0.5**level for level in range(len(losses)))
    return Loss(total, losses[0].dice, losses[0].cross_entropy)
