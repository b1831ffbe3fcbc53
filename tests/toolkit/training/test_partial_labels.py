"""Cases of which some classes alone were drawn: store, batches, training, validation and metrics."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_trainings import make_trainer, organ_names, partly_labelled_store, small_config

from attunet.config import DataConfig, OptimConfig, RunConfig
from attunet.device.accelerator import make_accelerator
from attunet.errors import InputError
from attunet.evaluate_case import read_labelled_case
from attunet.loading.order import Sampling
from attunet.loading.resident import ResidentLoader
from attunet.losses import labels_of_level, loss_of_levels
from attunet.preparation.prepare import prepare
from attunet.runs.load_run import load_run
from attunet.store import Store, open_store
from attunet.training.loop import train
from attunet.training.optimization import class_weights
from attunet.training.validation import Validator

CASES = [f"{number:02d}-T2SPIR" for number in range(1, 5)]


@pytest.fixture
def partial(tmp_path: Path, write_case: Callable[..., tuple[Path, Path]]) -> Store:
    return partly_labelled_store(tmp_path, write_case, num_cases=4, folds=2)


def test_the_store_keeps_what_was_drawn(partial: Store) -> None:
    again = open_store(partial.path)
    assert again.drawn_classes(CASES[0]).tolist() == [True, True, True, True, False]
    assert again.drawn_classes(CASES[1]).tolist() == [True, True, False, False, False]
    assert again.drawn_classes(CASES[2]).all()


def test_what_contradicts_the_masks_is_refused(tmp_path: Path, partial: Store) -> None:
    source, file = tmp_path / "source", tmp_path / "other.json"
    names = organ_names(source)
    for content, message in (
        ({CASES[2]: names[:2]}, f"has pixels of '{sorted(names[2:])[0]}', which is not listed as drawn in {CASES[2]}"),
        ({CASES[2]: ["pancreas"]}, "drawn classes must be of .*, got 'pancreas'"),
        ({"nobody": names}, "'nobody' is no case with a mask"),
        ({CASES[2]: "liver"}, "must be a list of texts"),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(InputError, match=message):
            prepare(source, tmp_path / "refused", DataConfig(), folds=2, labelled_file=file)
        assert not (tmp_path / "refused").exists()


def test_batches_know_the_drawn_classes_of_their_slices(partial: Store) -> None:
    loader = ResidentLoader(partial, CASES, torch.device("cpu"), Sampling(0, 9))
    batch = loader.take(1)
    cases = [CASES[number] for number in loader.locate(batch.samples)[0]]
    assert batch.drawn is not None
    assert batch.drawn.tolist() == [partial.drawn_classes(case).tolist() for case in cases]
    assert [part.drawn.shape[0] for part in batch.split(2) if part.drawn is not None] == [5, 4]
    assert ResidentLoader(partial, CASES[2:], torch.device("cpu"), Sampling(0, 4)).take(0).drawn is None


def test_frequencies_count_a_class_where_it_was_drawn(partial: Store) -> None:
    loader = ResidentLoader(partial, CASES, torch.device("cpu"), Sampling(0, 4))
    spleen = [int((np.array(partial.label(case)) == 4).sum()) for case in CASES[2:]]
    pixels = [partial.label(case).size for case in CASES[2:]]
    assert loader.class_frequencies()[4].item() == pytest.approx(sum(spleen) / sum(pixels), rel=1e-5)


def test_a_class_weighs_more_the_fewer_slices_it_was_drawn_in(partial: Store) -> None:
    sampling, device = Sampling(0, 4), torch.device("cpu")
    lengths = np.array([partial.case(case).num_slices for case in CASES])
    weights = class_weights(OptimConfig(), ResidentLoader(partial, CASES, device, sampling))
    assert weights is not None
    spleen, others = lengths.sum() / lengths[2:].sum(), lengths.sum() / lengths[[0, 2, 3]].sum()
    assert weights.tolist() == pytest.approx([1, 1, others, others, spleen])
    weights = class_weights(OptimConfig(), ResidentLoader(partial, CASES[1:2], device, sampling))
    assert weights is not None
    assert weights.tolist() == [1, 1, 4, 4, 4]
    assert class_weights(OptimConfig(), ResidentLoader(partial, CASES[2:], device, sampling)) is None


def test_metrics_are_not_defined_where_nothing_was_drawn(partial: Store) -> None:
    case = read_labelled_case(partial, CASES[1])
    prediction = case.truth.copy()
    prediction[:10] = 4  # a spleen of which nothing is known
    metrics = case.metrics(prediction)
    assert np.isnan(metrics.dice[1:]).all()
    assert np.isfinite(metrics.dice[0])
    assert case.confusion(prediction)[:, 2:].sum() == 0
    full = read_labelled_case(partial, CASES[2])
    assert full.metrics(np.full_like(full.truth, 4)).dice[3] < 1


class Spleen(torch.nn.Module):
    """Predicts the last class everywhere."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(images), 5, *images.shape[2:])
        logits[:, 4] = 9
        return logits


def test_validation_leaves_out_what_was_not_drawn(partial: Store) -> None:
    store, accelerator = partial, make_accelerator(RunConfig(device="cpu"))
    result = Validator(store, CASES[:3], accelerator, OptimConfig()).validate(Spleen())
    per_case = [result.dice["per_case"][case][store.classes.foreground[3]] for case in CASES[:3]]
    assert per_case[:2] == [None, None]
    assert per_case[2] < 0.5
    alone = Validator(store, [CASES[1]], accelerator, OptimConfig(dice_weight=0.0)).validate(Spleen())
    background = float((np.array(store.label(CASES[1])) == 0).mean())
    # Wrong where the liver is, and nowhere else
    assert alone.loss == pytest.approx((1 - background) * np.log(4 + np.exp(9)), rel=1e-2)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_training_learns_from_partial_labels(partial: Store, tmp_path: Path, parts: int) -> None:
    config = small_config("optim.epochs=0.5", f"optim.accumulate_steps={parts}")
    train(partial.path, tmp_path / "run", config, fold="all")
    assert set(load_run(tmp_path / "run").drawn) == set(CASES[:2])


def test_every_level_of_deep_supervision_has_the_marginal_loss(partial: Store) -> None:
    settings = "model.name=unet model.depth=4 model.deep_supervision=true optim.batch_size=8 optim.dice_weight=0"
    trainer = make_trainer(partial, settings, cases=CASES[:1])
    batch = trainer.loader.take(0)
    with torch.no_grad():
        loss = loss_of_levels(
            trainer.gradient.sums(batch.images, batch.labels, batch.drawn), trainer.config.optim
        ).total.item()
        levels = trainer.network.logits_of_levels(batch.images)
    expected = []
    for level, logits in enumerate(levels):
        probability = logits.double().softmax(1)
        probability[:, 0] += probability[:, 4]  # the spleen was not drawn
        truth = labels_of_level(batch.labels, level).long()
        expected.append(-probability.gather(1, truth[:, None]).log().mean().item())
    assert len(expected) == 3
    assert loss == pytest.approx((4 * expected[0] + 2 * expected[1] + expected[2]) / 7, rel=1e-5)
