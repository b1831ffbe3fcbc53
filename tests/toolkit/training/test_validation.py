"""Validation judges what a user gets."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attunet.config import OptimConfig, RunConfig
from attunet.device.accelerator import make_accelerator
from attunet.store import Store
from attunet.training.validation import validate
from attunet.volumes.spec import Postprocessing, Preprocessing


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
    dice = validate(Recites(found, 5), store, [case], make_accelerator(RunConfig(device="cpu")), OptimConfig())["dice"]
    organ = int((truth == 1).sum())
    assert dice["per_case"][case][store.classes.foreground[0]] == pytest.approx(2 * organ / (2 * organ + 1))  # half of the neck stays


@pytest.mark.parametrize("keep", [False, True])
def test_label_maps_are_finished_as_the_store_says(small_store: Store, keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attunet.training.validation.BATCH_SIZE", 4)  # of six slices
    store = dataclasses.replace(small_store, preprocessing=Preprocessing(small_store.spec, Postprocessing(keep)))
    case, liver = store.cases[0].name, store.classes.foreground[0]
    truth = np.array(store.label(case))
    found = truth.copy()
    assert not found[:, :2, :2].any()
    found[0, :2, :2] = 1  # four pixels in a corner, far from the organ
    organ = int((truth == 1).sum())
    dice = validate(Recites(found, 5), store, [case], make_accelerator(RunConfig(device="cpu")), OptimConfig())["dice"]
    assert dice["per_case"][case][liver] == pytest.approx(1.0 if keep else 2 * organ / (2 * organ + 4))
    assert [value for name, value in dice["per_case"][case].items() if name != liver] == [1.0, 1.0, 1.0]
