"""The loss of sums equals the loss of the field's own implementations, and adds over parts of a batch."""

import pytest
import torch
import torch.nn.functional as F

from attunet.config import OptimConfig
from attunet.losses import SMOOTH, loss_of, segmentation_sums

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(6, 5, 16, 24, generator=GENERATOR, dtype=torch.float32)
LABELS = torch.randint(0, 5, (6, 16, 24), generator=GENERATOR, dtype=torch.uint8)


def total(sums: torch.Tensor) -> torch.Tensor:
    return loss_of(sums, OptimConfig()).total


def test_cross_entropy_equals_torch() -> None:
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0, 4.0])
    loss = loss_of(segmentation_sums(LOGITS, LABELS, weights), OptimConfig(dice_weight=0.0))
    torch.testing.assert_close(loss.total, F.cross_entropy(LOGITS, LABELS.long(), weights))


def test_dice_is_the_logarithm_of_monais() -> None:
    losses = pytest.importorskip("monai.losses", reason="MONAI is the oracle here and is not installed")
    options = {"include_background": False, "to_onehot_y": True, "softmax": True, "batch": True, "reduction": "none"}
    per_class = losses.DiceLoss(smooth_nr=SMOOTH, smooth_dr=SMOOTH, **options)(LOGITS, LABELS[:, None].long())
    loss = loss_of(segmentation_sums(LOGITS, LABELS), OptimConfig(cross_entropy_weight=0.0))
    torch.testing.assert_close(loss.total, -(1 - per_class.flatten()).log().mean())


def test_a_class_that_the_batch_lacks_has_no_dice() -> None:
    lacking = LABELS.clone()
    lacking[lacking == 4] = 0
    loss = loss_of(segmentation_sums(LOGITS, lacking), OptimConfig(cross_entropy_weight=0.0))
    kept = segmentation_sums(LOGITS, lacking).reshape(-1)[2:].reshape(3, 5)[:, 1:4]
    torch.testing.assert_close(loss.total, -((2 * kept[0] + SMOOTH) / (kept[1] + kept[2] + SMOOTH)).log().mean())


def test_sums_of_parts_give_the_loss_and_gradient_of_the_whole() -> None:
    whole, parts = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    total(segmentation_sums(whole, LABELS)).backward()
    total(segmentation_sums(parts[:1], LABELS[:1]) + segmentation_sums(parts[1:], LABELS[1:])).backward()
    torch.testing.assert_close(parts.grad, whole.grad)


def test_ignored_pixels_change_nothing() -> None:
    ignored = LABELS.clone()
    ignored[:, :8] = 255
    changed = LOGITS.clone()
    changed[:, :, :8] += 100 * torch.randn(changed[:, :, :8].shape, generator=GENERATOR)
    torch.testing.assert_close(segmentation_sums(changed, ignored), segmentation_sums(LOGITS[:, :, 8:], LABELS[:, 8:]))


def test_a_perfect_prediction_has_no_loss() -> None:
    perfect = 50.0 * F.one_hot(LABELS.long(), 5).permute(0, 3, 1, 2)
    assert total(segmentation_sums(perfect, LABELS)).item() < 1e-4
