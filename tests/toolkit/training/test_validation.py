"""Validation judges what a user gets."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attunet.config import OptimConfig, RunConfig
from attunet.device.accelerator import make_accelerator
from attunet.losses import loss_of, segmentation_sums
from attunet.store import Store
from attunet.training.validation import Validator
from attunet.volumes.spec import Postprocessing, Preprocessing


def validator(store: Store, case: str, weights: torch.Tensor | None = None) -> Validator:
    return Validator(store, [case], make_accelerator(RunConfig(device="cpu")), OptimConfig(), weights)


class Recites(nn.Module):
    """Gives the slices of a label map (Z, H, W) one after the other, whatever it is shown."""

    def __init__(self, labels: np.ndarray, num_classes: int) -> None:
        super().__init__()
        self.logits = 20 * F.one_hot(torch.from_numpy(labels).long(), num_classes).permute(0, 3, 1, 2).float()
        self.given = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.given += len(images)
        return self.logits[self.given - len(images) : self.given]


def test_necks_are_as_wide_as_the_prepared_pixels_make_them(small_store: Store) -> None:
    assert small_store.spec.spacing_mm is not None
    finish = Preprocessing(small_store.spec, Postprocessing(True, 2 * small_store.spec.spacing_mm))
    store, case = dataclasses.replace(small_store, preprocessing=finish), small_store.cases[0].name
    truth = np.array(small_store.label(case))
    found = truth.copy()
    column = int(np.flatnonzero((truth[2] == 1).any(0))[-1])  # the liver's last one in a slice in the middle
    row = int(np.flatnonzero(truth[2, :, column] == 1)[0])
    neck, knob = (2, row, slice(column + 1, column + 3)), (2, slice(row - 3, row + 4), slice(column + 3, column + 9))
    assert not found[neck].any()
    assert not found[knob].any()
    found[neck] = found[knob] = 1
    dice = validator(store, case).validate(Recites(found, 5)).dice
    organ = int((truth == 1).sum())
    # Half of the neck stays
    assert dice["per_case"][case][store.classes.foreground[0]] == pytest.approx(2 * organ / (2 * organ + 1))


@pytest.mark.parametrize("keep", [False, True])
def test_label_maps_are_finished_as_the_store_says(
    small_store: Store, keep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attunet.training.validation.BATCH_SIZE", 4)  # of six slices
    store = dataclasses.replace(small_store, preprocessing=Preprocessing(small_store.spec, Postprocessing(keep)))
    case, liver = store.cases[0].name, store.classes.foreground[0]
    truth = np.array(store.label(case))
    found = truth.copy()
    assert not found[:, :2, :2].any()
    found[0, :2, :2] = 1  # four pixels in a corner, far from the organ
    organ = int((truth == 1).sum())
    dice = validator(store, case).validate(Recites(found, 5)).dice
    assert dice["per_case"][case][liver] == pytest.approx(1.0 if keep else 2 * organ / (2 * organ + 4))
    assert [value for name, value in dice["per_case"][case].items() if name != liver] == [1.0, 1.0, 1.0]


def test_the_loss_has_the_class_weights_of_the_training(small_store: Store) -> None:
    case = small_store.cases[0].name
    labels = np.array(small_store.label(case))
    wrong = np.where(labels == 1, 0, labels)  # the liver is missed
    weights = torch.tensor([0.1, 10.0, 1.0, 1.0, 1.0])
    logits = Recites(wrong, 5).logits
    result = validator(small_store, case, weights).validate(Recites(wrong, 5))
    expected = F.cross_entropy(logits, torch.from_numpy(labels).long(), weights)
    sums = segmentation_sums(logits, torch.from_numpy(labels), weights)
    assert result.loss == pytest.approx(loss_of(sums, OptimConfig()).total.item(), rel=1e-5)
    assert loss_of(sums, OptimConfig()).cross_entropy.item() == pytest.approx(expected.item(), rel=1e-5)
    assert result.loss != pytest.approx(validator(small_store, case).validate(Recites(wrong, 5)).loss, rel=0.1)
