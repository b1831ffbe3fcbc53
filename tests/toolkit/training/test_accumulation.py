"""A batch computed in parts is the same batch: loss, gradient and the statistics of batch norm."""

import pytest
import torch
from small_trainings import make_trainer
from torch import nn

from attunet.errors import InputError
from attunet.store import Store
from attunet.training.trainer import Trainer


def trainer_in(store: Store, parts: int) -> Trainer:
    return make_trainer(store, "optim.batch_size=7 optim.lr=5e-3", f"optim.accumulate_steps={parts}")


def test_parts_give_the_losses_and_weights_of_the_whole(small_store: Store) -> None:
    """Batch norm frozen, whose statistics are those of a part. Seven slices in three parts are uneven."""
    losses, weights = [], []
    for parts in (1, 3):
        trainer = trainer_in(small_store, parts)
        for module in trainer.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        for step in range(5):
            trainer.step(step)
            losses.append(trainer.read_losses().loss)
        weights.append(torch.cat([p.detach().flatten() for p in trainer.network.parameters()]))
    assert losses[5:] == pytest.approx(losses[:5], abs=1e-4)
    assert losses[-1] < losses[5]
    torch.testing.assert_close(weights[1], weights[0], atol=2e-4, rtol=0)


def test_batch_norm_meets_each_part_once(small_store: Store) -> None:
    trainer = trainer_in(small_store, 3)
    trainer.step(0)
    norms = [m for m in trainer.network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {int(norm.num_batches_tracked) for norm in norms} == {3}


def test_more_parts_than_slices_are_refused(small_store: Store) -> None:
    with pytest.raises(InputError, match=r"optim\.batch_size: must be at least .*accumulate_steps \(8\), got 7"):
        trainer_in(small_store, 8)
