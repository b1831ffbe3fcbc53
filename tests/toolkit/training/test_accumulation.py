"""A batch computed in parts is the same batch: loss, gradient and what batch norm remembers."""

import copy

import pytest
import torch
from torch import nn

from attunet.config import ModelConfig, load_config
from attunet.device.accelerator import make_accelerator
from attunet.errors import InputError
from attunet.loading.order import Sampling
from attunet.loading.resident import ResidentLoader
from attunet.models import build_model
from attunet.store import Store
from attunet.training.trainer import Trainer

SETTINGS = ["optim.batch_size=7", "optim.epochs=3", "run.mixed_precision=no", "run.device=cpu", "optim.lr=5e-3"]


def make_trainer(store: Store, network: nn.Module, parts: int) -> Trainer:
    config = load_config(None, [*SETTINGS, f"optim.accumulate_steps={parts}"])
    accelerator = make_accelerator(config.run)
    loader = ResidentLoader(store, [c.name for c in store.cases], accelerator.device, Sampling(0, 7))
    return Trainer(copy.deepcopy(network), loader, 5, config, accelerator)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return build_model(ModelConfig(name="attention_unet", base_width=4, depth=2), 1, 5)


def test_parts_give_the_losses_and_weights_of_the_whole(small_store: Store, network: nn.Module) -> None:
    """Batch norm frozen, whose statistics are those of a part. Seven slices in three parts are uneven."""
    losses, weights = [], []
    for parts in (1, 3):
        trainer = make_trainer(small_store, network, parts)
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


def test_batch_norm_meets_each_part_once(small_store: Store, network: nn.Module) -> None:
    trainer = make_trainer(small_store, network, 3)
    trainer.step(0)
    norms = [m for m in trainer.network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {int(norm.num_batches_tracked) for norm in norms} == {3}


def test_more_parts_than_slices_are_refused(small_store: Store, network: nn.Module) -> None:
    with pytest.raises(InputError, match=r"optim\.batch_size: must be at least .*accumulate_steps \(8\), got 7"):
        make_trainer(small_store, network, 8)
