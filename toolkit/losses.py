"""Dice and cross entropy from sums, so that many processes compute the loss of the global batch.

The network's output is first reduced to a short vector of sums (`segmentation_sums`), the sums are added over the processes
(`add_over_processes`), and only then divided (`loss_from_sums`): averages of averages never appear.
"""

from dataclasses import dataclass

import torch
import torch.distributed as distributed
import torch.nn.functional as F

from attunet.classes import IGNORE_LABEL

SMOOTH = 1e-5  # in the Dice quotient, as in nnU-Net


@dataclass(frozen=True)
class Loss:
    """Scalars on the device: `total` is the weighted sum of the two parts."""

    total: torch.Tensor
    dice: torch.Tensor
    cross_entropy: torch.Tensor


def segmentation_sums(logits: torch.Tensor, labels: torch.Tensor, class_weights: torch.Tensor | None = None) -> torch.Tensor:
    """Sums of a batch: `(2 + 3 K,)` float32: cross entropy, its weight, then intersection, prediction and truth per class.

    logits: `(N, K, H, W)`; labels: `(N, H, W)` uint8 class indices, pixels of `IGNORE_LABEL` count nowhere;
    class_weights: `(K,)` weights in the cross entropy.
    """
    num_classes = logits.shape[1]
    log_probability = F.log_softmax(logits.float(), dim=1)
    truth = labels[:, None] == torch.arange(num_classes, dtype=labels.dtype, device=labels.device)[:, None, None]
    valid = (labels != IGNORE_LABEL)[:, None]
    weights = torch.ones(num_classes, device=logits.device) if class_weights is None else class_weights
    over = (0, 2, 3)
    probability = log_probability.exp() * valid
    per_class_entropy = -torch.where(truth, log_probability, 0.0).sum(over)
    per_class_truth = truth.sum(over).float()
    intersection = torch.where(truth, probability, 0.0).sum(over)
    totals = torch.stack([(weights * per_class_entropy).sum(), (weights * per_class_truth).sum()])
    return torch.cat([totals, intersection, probability.sum(over), per_class_truth])


def add_over_processes(sums: torch.Tensor) -> torch.Tensor:
    """The sums of the global batch; the gradient flows into this process's share alone.

    Every process then differentiates the same global loss by its own samples, and adding the gradients over the processes gives the
    gradient of the global loss. DistributedDataParallel averages instead of adding, so the loss is scaled by the number of processes.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return sums
    everyone = sums.detach().clone()
    distributed.all_reduce(everyone)
    return sums + (everyone - sums.detach())


def loss_from_sums(sums: torch.Tensor, *, dice_weight: float, cross_entropy_weight: float) -> Loss:
    """Logarithmic batch Dice over the foreground classes that the batch has, plus cross entropy.

    The Dice quotient is taken over all pixels of the batch (as in nnU-Net); its negative logarithm (Wong et al. 2018, "3D Segmentation
    with Exponential Logarithmic Loss", with exponent 1) divides the gradient of each class by the Dice it has reached. Without that a
    small organ next to its mirror image, the left kidney of CHAOS, is not learnt at all for the first 25 passes over the data.
    """
    cross_entropy = sums[0] / sums[1].clamp_min(1.0)
    intersection, prediction, truth = sums[2:].reshape(3, -1)[:, 1:]
    quotient = (2 * intersection + SMOOTH) / (prediction + truth + SMOOTH)
    present = truth > 0
    dice = -torch.where(present, quotient, 1.0).log().sum() / present.sum().clamp_min(1)
    return Loss(dice_weight * dice + cross_entropy_weight * cross_entropy, dice, cross_entropy)
