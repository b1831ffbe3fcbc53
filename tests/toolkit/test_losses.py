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


DRAWN = torch.tensor(
    [[1, 1, 1, 1, 1], [1, 1, 0, 1, 0], [1, 0, 0, 0, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0, 1, 1, 1]],
    dtype=torch.bool,
)


def marginal_loss(
    logits: torch.Tensor, labels: torch.Tensor, drawn: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Cross entropy and Dice of partial labels, pixel by pixel and class by class."""
    probability, num_classes = logits.softmax(1), logits.shape[1]
    entropy, weight = torch.zeros((), dtype=logits.dtype), torch.zeros((), dtype=logits.dtype)
    for n, y, x in torch.cartesian_prod(*(torch.arange(side) for side in labels.shape)).tolist():
        label = int(labels[n, y, x])
        if label == 255:
            continue
        could_be = [label] if label else [0, *(k for k in range(1, num_classes) if not drawn[n, k])]
        entropy = entropy - weights[label] * sum(probability[n, k, y, x] for k in could_be).log()
        weight = weight + weights[label]
    quotients = []
    for k in range(1, num_classes):
        counted = [n for n in range(len(labels)) if drawn[n, k]]
        truth = labels[counted] == k
        if not truth.any():
            continue
        predicted = probability[counted, k] * (labels[counted] != 255)
        quotients.append((2 * predicted[truth].sum() + SMOOTH) / (predicted.sum() + truth.sum() + SMOOTH))
    return entropy / weight - torch.stack(quotients).log().mean()


def partial_labels() -> torch.Tensor:
    """Labels in which no slice has a class that was not drawn there, with some ignored pixels."""
    visible = torch.gather(DRAWN, 1, LABELS.flatten(1).long()).reshape(LABELS.shape)
    labels = torch.where(visible, LABELS, 0).to(torch.uint8)
    labels[:, :2, :5] = 255
    return labels


def test_partial_labels_have_the_marginal_loss_and_its_gradient() -> None:
    labels, weights = partial_labels(), torch.tensor([0.5, 1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    expected_logits, logits = (LOGITS.double().requires_grad_() for _ in range(2))
    expected = marginal_loss(expected_logits, labels, DRAWN, weights)
    loss = total(segmentation_sums(logits, labels, weights, DRAWN))
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    expected.backward()
    loss.backward()
    torch.testing.assert_close(logits.grad, expected_logits.grad, rtol=1e-8, atol=1e-12)


def test_the_marginal_loss_is_the_ordinary_one_where_everything_is_drawn() -> None:
    drawn = torch.ones(6, 5, dtype=torch.bool)
    torch.testing.assert_close(segmentation_sums(LOGITS, LABELS, None, drawn), segmentation_sums(LOGITS, LABELS))


def test_the_marginal_sums_of_processes_add_up() -> None:
    labels = partial_labels()
    for cuts in ((6,), (3, 3), (2, 2, 2)):
        parts = zip(LOGITS.split(cuts), labels.split(cuts), DRAWN.split(cuts), strict=True)
        together = torch.stack([segmentation_sums(x, y, None, d) for x, y, d in parts]).sum(0)
        torch.testing.assert_close(together, segmentation_sums(LOGITS, labels, None, DRAWN))


def test_what_was_not_drawn_may_be_predicted_for_nothing() -> None:
    """A liver where only the spleen was drawn costs as little as background; where the liver was drawn it is wrong."""
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    liver = 20.0 * F.one_hot(torch.ones_like(labels).long(), 5).permute(0, 3, 1, 2)
    assert total(segmentation_sums(liver, labels, None, torch.tensor([[True, False, True, True, True]]))).item() < 1e-6
    assert total(segmentation_sums(liver, labels, None, torch.ones(1, 5, dtype=torch.bool))).item() > 10
