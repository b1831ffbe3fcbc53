"""Training with heads on the coarser levels: the loss, its parts and its graph, and a result without the heads."""

import shutil
from pathlib import Path

import pytest
import torch
from small_trainings import make_trainer, small_config

from attunet.config import ModelConfig, OptimConfig, load_config
from attunet.errors import InputError
from attunet.losses import labels_of_level, loss_of, loss_of_levels, segmentation_sums
from attunet.models import build_model
from attunet.runs.load_run import load_run
from attunet.store import Store
from attunet.training.loop import train

SETTINGS = "model.deep_supervision=true model.depth=4 optim.batch_size=7 optim.lr=5e-3"


def test_the_loss_weighs_each_level_half_as_much_as_the_finer_one() -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (2, 16, 16), dtype=torch.uint8)
    levels = [torch.randn(2, 3, 16 // 2**i, 16 // 2**i, dtype=torch.float64) for i in range(3)]
    sums = [segmentation_sums(logits, labels_of_level(labels, i)) for i, logits in enumerate(levels)]
    one, two, three = (loss_of(level, OptimConfig()).total for level in sums)
    assert loss_of_levels(torch.stack(sums), OptimConfig()).total.item() == pytest.approx(
        float((4 * one + 2 * two + three) / 7)
    )
    assert loss_of_levels(sums[0][None], OptimConfig()).total == one


def test_labels_of_a_level_are_pixels_of_the_labels() -> None:
    labels = torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8)
    assert torch.equal(labels_of_level(labels, 0), labels)
    assert labels_of_level(labels, 2).tolist() == [[[18, 22], [50, 54]]]


@pytest.mark.parametrize("name", ["unet", "attention_unet"])
def test_heads_stand_on_the_coarser_levels_but_the_coarsest(name: str) -> None:
    network = build_model(ModelConfig(name=name, base_width=4, depth=4), 1, 5)
    plain = network(torch.ones(2, 1, 32, 48))
    network.supervise_coarse_levels()
    levels = network.logits_of_levels(torch.ones(2, 1, 32, 48))
    assert [tuple(logits.shape[2:]) for logits in levels] == [(32, 48), (16, 24), (8, 12)]
    torch.testing.assert_close(levels[0], plain)


def test_every_head_is_trained(small_store: Store) -> None:
    trainer = make_trainer(small_store, SETTINGS)
    before = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    trainer.step(0)
    unchanged = [name for name, p in trainer.network.named_parameters() if torch.equal(p, before[name])]
    assert sum(name.startswith("coarse_heads") for name in before) == 4
    assert unchanged == []


def test_parts_of_a_batch_and_recomputed_activations_give_its_loss(small_store: Store) -> None:
    losses = []
    for setting in ("optim.accumulate_steps=1", "optim.accumulate_steps=3", "run.activation_checkpointing=true"):
        trainer = make_trainer(small_store, SETTINGS, setting)
        for module in trainer.network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        for step in range(3):
            trainer.step(step)
        losses.append(trainer.read_losses().loss)
    assert losses[1:] == pytest.approx([losses[0]] * 2, abs=1e-4)


def test_a_run_has_the_network_without_the_heads_and_can_be_resumed(small_store: Store, tmp_path: Path) -> None:
    more = "optim.epochs=4 optim.batch_size=6 run.checkpoint_every_steps=1 run.validate_every_epochs=1e6"
    config = small_config("model.deep_supervision=true", more)
    train(small_store.path, tmp_path / "run", config, fold=0)
    run = load_run(tmp_path / "run")
    plain = build_model(config.model, 1, 5)
    assert run.network.state_dict().keys() == plain.state_dict().keys()
    before = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}
    shutil.rmtree(max((tmp_path / "run/checkpoints").glob("step-*")))
    train(small_store.path, tmp_path / "run", config, fold=0, resume="require")
    torch.testing.assert_close(load_run(tmp_path / "run").network.state_dict(), before, rtol=0, atol=0)


def test_one_level_has_nothing_to_supervise() -> None:
    with pytest.raises(InputError, match=r"needs a model\.depth of at least 2, got 1"):
        load_config(None, ["model.depth=1", "model.deep_supervision=true"])
