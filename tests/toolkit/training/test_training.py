"""Training as a user meets it: it learns, it says what is wrong, and it keeps what it promised."""

import dataclasses
import itertools
import json
import shutil
from importlib import metadata
from pathlib import Path

import pytest
import torch
from small_trainings import make_trainer, small_config

from attunet.config import DataConfig, load_config
from attunet.errors import InputError, RunError
from attunet.models.batch_norm_relu import BatchNormReLU
from attunet.preparation.prepare import prepare
from attunet.presets import PRESETS, preset_names
from attunet.runs.load_run import load_run
from attunet.runs.run_folder import read_metrics
from attunet.store import Store, open_store
from attunet.training.loop import train
from attunet.training.optimization import learning_rate, peak_rate
from attunet.training.trainer import Trainer


@pytest.mark.slow
@pytest.mark.parametrize("model", ["unet", "attention_unet"])
def test_one_batch_is_learnt_by_heart(small_store: Store, model: str) -> None:
    settings = "augment.enabled=false optim.batch_size=6 optim.lr=1e-2 optim.epochs=250 optim.ema_decay=0.9"
    first = [small_store.cases[0].name]
    trainer = make_trainer(small_store, settings, f"model.name={model} model.base_width=8", cases=first)
    assert trainer.loader.num_samples == 6
    for step in range(trainer.total_steps):
        trainer.step(step)
    images, labels = trainer.loader.gather(torch.arange(6))
    with torch.inference_mode():
        found = trainer.average.network(images).argmax(1)
    for organ in range(1, 5):
        overlap = 2 * ((found == organ) & (labels == organ)).sum() / ((found == organ).sum() + (labels == organ).sum())
        assert overlap > 0.99, f"organ {organ}"


def test_a_run_says_what_it_is(small_store: Store, tmp_path: Path) -> None:
    run = tmp_path / "run"
    made = small_config("optim.epochs=2 run.log_every=2 optim.schedule=one_cycle")
    train(small_store.path, run, made, fold=1)
    loaded = load_run(run)
    training, held_out = small_store.split(1)
    assert (list(loaded.training_cases), loaded.held_out, loaded.fold, loaded.finished) == (training, held_out, 1, True)
    assert loaded.training_cases == {c.name: c.image_sha256 for c in small_store.cases if c.name in training}
    voxels = {c.content_sha256 for c in small_store.cases if c.name in training}
    assert set(loaded.training_voxels) == voxels
    assert not loaded.network.training
    rows = read_metrics(run)
    assert {row["event"] for row in rows} == {"train", "validation", "speed", "native"}
    assert set(rows[-1]["dice"]["per_case"]) == set(held_out)
    assert load_config(run / "config.toml") == dataclasses.replace(made, data=small_store.data_config)
    assert json.loads((run / "environment.json").read_text())["versions"]["torch"] == metadata.version("torch")


def test_a_finished_run_is_refused_continued_or_left(log_lines: list[str], small_store: Store, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(InputError, match="holds a store; name another folder for a run"):
        train(small_store.path, small_store.path, small_config(), fold=0)
    with pytest.raises(InputError, match="resume: must be one of never, require, auto, got True"):
        train(small_store.path, run, small_config(), fold=0, resume=True)
    with pytest.raises(InputError, match="there is none"):
        train(small_store.path, run, small_config(), fold=0, resume="require")
    train(small_store.path, run, small_config("optim.epochs=0.5"), fold=0)
    with pytest.raises(InputError, match="continue it with --resume"):
        train(small_store.path, run, small_config("optim.epochs=0.5"), fold=0)
    log_lines.clear()
    train(small_store.path, run, small_config("optim.epochs=0.5"), fold=0, resume="require")
    assert "finished" in log_lines[0]
    with pytest.raises(InputError, match=r"optim\.lr was 0\.0015 when this run began and is now 0\.001"):
        train(small_store.path, run, small_config("optim.epochs=0.5 optim.lr=1e-3"), fold=0, resume="auto")
    with pytest.raises(InputError, match="another fold"):
        train(small_store.path, run, small_config("optim.epochs=0.5"), fold=1, resume="auto")


def test_fine_tuning_starts_from_the_given_weights(small_store: Store, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    train(small_store.path, first, small_config("optim.epochs=1"), fold=0)
    still = small_config("optim.epochs=0.2 optim.lr=0 optim.weight_decay=0")
    train(small_store.path, second, still, fold=0, init=first)
    for name, value in load_run(first).network.named_parameters():
        torch.testing.assert_close(load_run(second).network.get_parameter(name), value, atol=0, rtol=0)
    with pytest.raises(InputError, match="another network"):
        train(small_store.path, tmp_path / "third", small_config("model.name=unet"), fold=0, init=first)


def test_a_resumed_training_has_the_initial_weights_that_it_began_with(
    log_lines: list[str], small_store: Store, tmp_path: Path
) -> None:
    first, second, child = tmp_path / "first", tmp_path / "second", tmp_path / "child"
    short = small_config("optim.epochs=0.2")
    for run, settings in ((first, "optim.epochs=0.2"), (second, "optim.epochs=0.2 run.seed=1")):
        train(small_store.path, run, small_config(settings), fold=0)
    renamed = {"liver": "spleen"}
    train(small_store.path, child, short, fold=0, init=first, init_classes=renamed)
    for init, classes in ((None, None), (first, None), (first, renamed)):
        log_lines.clear()
        train(small_store.path, child, short, fold=0, resume="require", init=init, init_classes=classes)
        assert "finished" in log_lines[0]
    for run, init, classes, words in (
        (child, second, None, "--init: .* began with the weights of first .*, and second holds others"),
        (first, second, None, "began with fresh weights"),
        (child, tmp_path / "nowhere", None, "nowhere: must be a run"),
        (child, first, {"liver": "liver"}, "--init-classes: .* began with spleen for liver, got liver"),
        (child, None, renamed, "--init-classes: needs --init"),
    ):
        with pytest.raises(InputError, match=words):
            train(small_store.path, run, short, fold=0, resume="require", init=init, init_classes=classes)


def test_a_resumed_training_keeps_its_tier_and_says_so(
    log_lines: list[str], small_store: Store, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(small_store.path, run, small_config("optim.epochs=1 run.checkpoint_every_steps=1"), fold=0)
    newest = sorted((run / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))[-1]
    shutil.rmtree(newest)
    train(small_store.path, run, small_config("optim.epochs=1 run.resident_gb=0"), fold=0, resume="require")
    assert "run.resident_gb=0.0 changes nothing: a resumed training keeps its slices resident" in log_lines


def test_a_loss_that_is_not_finite_stops_with_the_samples_named(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    step = Trainer.step

    def poisoned(self: Trainer, number: int) -> None:
        if number == 3:
            self.gradient.class_weights = torch.full((5,), torch.inf)
        step(self, number)

    monkeypatch.setattr(Trainer, "step", poisoned)
    made = small_config("optim.epochs=4 run.checkpoint_every_steps=1 run.log_every=100")
    told = (
        r"step 3: loss or gradient is not finite; its slices: 0\d-T2SPIR\[\d\].* last good checkpoint: "
        rf"{run}/checkpoints/step-0000000003$"
    )
    with pytest.raises(RunError, match=told):
        train(small_store.path, run, made, fold=0)
    loaded = load_run(run)
    assert loaded.step == 3  # the three good steps; nothing of the bad one
    assert all(torch.isfinite(p).all() for p in loaded.network.parameters())


def test_a_clock_that_goes_back_stops_no_checkpoint(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = itertools.count(20_000, -1)
    monkeypatch.setattr("time.time", lambda: 86400.0 * next(days))
    made = small_config("optim.epochs=1 run.checkpoint_every_minutes=1e-9 run.log_every=1")
    train(small_store.path, tmp_path / "run", made, fold=0)
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows if row["event"] == "checkpoint"] == [1, 2]
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)
    assert load_run(tmp_path / "run").step == 3


def test_a_streamed_training_goes_on_where_it_was(log_lines: list[str], small_store: Store, tmp_path: Path) -> None:
    whole, again = tmp_path / "whole", tmp_path / "again"
    same = "optim.epochs=3 run.checkpoint_every_steps=5 run.log_every=3"
    train(small_store.path, whole, small_config(same, "run.resident_gb=0"), fold=0)
    assert "streamed" in log_lines[0]
    assert json.loads((whole / "environment.json").read_text())["data_tier"] == "streamed"
    shutil.copytree(whole, again)
    last = sorted((again / "checkpoints").glob("step-*"))[-1].name
    shutil.rmtree(again / "checkpoints" / last)
    # With room for everything it stays with the tier, and so with the order, that it began with.
    train(small_store.path, again, small_config(same, "run.resident_gb=1"), fold=0, resume="require")
    assert "streamed" in next(line for line in log_lines if line.startswith("resuming"))
    for part in ("model", "average", "optimizer"):
        name = f"checkpoints/{last}/{part}.safetensors"
        assert (again / name).read_bytes() == (whole / name).read_bytes(), part


def test_an_oblong_window_is_trained_with(log_lines: list[str], tmp_path: Path, write_case) -> None:
    for number in range(1, 4):
        write_case(tmp_path / "source", f"{number:02d}-T2SPIR", seed=number)
    store = prepare(tmp_path / "source", tmp_path / "store", DataConfig(size=(48, 80)), folds=3)
    log_lines.clear()
    train(store.path, tmp_path / "run", small_config("optim.epochs=1"), fold=0)
    assert "at 48×80 on 2 cases" in log_lines[0]
    assert load_run(tmp_path / "run").config.data.size == (48, 80)
    assert {row["event"] for row in read_metrics(tmp_path / "run")} >= {"validation", "native"}


def test_a_class_that_no_training_case_has_is_named(log_lines: list[str], tmp_path: Path, write_case) -> None:
    write_case(tmp_path / "source", "01-T2SPIR", seed=1)
    for number in (2, 3):
        write_case(tmp_path / "source", f"{number:02d}-T2SPIR", seed=number, values=(0, 1, 2, 3, 0))
    store = prepare(tmp_path / "source", tmp_path / "store", DataConfig(), folds=3)
    only = next(fold for fold in range(3) if store.split(fold)[1] == ["01-T2SPIR"])
    for fold in (only, (only + 1) % 3):
        log_lines.clear()
        train(store.path, tmp_path / f"run-{fold}", small_config("optim.epochs=0.4"), fold=fold)
        named = (
            f"warning: no training case has {store.classes.foreground[3]}: what the network says of it means nothing"
        )
        assert (named in log_lines) == (fold == only)


def test_two_trainings_in_one_process_may_differ_in_precision(small_store: Store, tmp_path: Path) -> None:
    for precision in ("no", "bf16"):
        run = tmp_path / precision
        train(small_store.path, run, small_config("optim.epochs=0.4", f"run.mixed_precision={precision}"), fold=0)
        assert json.loads((run / "environment.json").read_text())["mixed_precision"] == precision


def test_wrong_calls_are_one_line(small_store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fold: must be 0 to 2 or all"):
        train(small_store.path, tmp_path / "run", small_config(), fold=7)
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        train(small_store.path, tmp_path / "run", small_config("run.mixed_precision=fp16"), fold=0)
    with pytest.raises(InputError):
        open_store(tmp_path)
    assert not (tmp_path / "run").exists()


def test_schedules_rise_and_fall_as_they_say() -> None:
    def rates(schedule: str) -> list[float]:
        optim = small_config(
            f"optim.schedule={schedule} optim.warmup_fraction=0.1 optim.lr=1 optim.lr_reference_batch=4"
        ).optim
        return [learning_rate(step, 100, optim) for step in range(100)]

    for schedule in ("one_cycle", "poly", "constant", "trapezoid"):
        rising = rates(schedule)[:10]
        assert rising == sorted(rising)
        assert rates(schedule)[10] == 1
    assert rates("one_cycle")[55] == pytest.approx(0.5)
    assert rates("poly")[55] == pytest.approx(0.5**0.9)
    assert rates("constant")[99] == 1
    assert rates("one_cycle")[99] < 0.001
    assert rates("trapezoid")[10:71] == [1] * 61
    assert rates("trapezoid")[85] == pytest.approx(1 - 0.5**0.5)
    assert 0 < rates("trapezoid")[99] < 0.02


def test_the_rate_follows_the_batch_unless_told_not_to(small_store: Store, tmp_path: Path) -> None:
    """Four times the batch, twice the rate; every preset keeps the rate that it names."""
    rates = {}
    for batch, reference in ((32, 8), (8, 8), (2, 8), (32, 0)):
        optim = small_config(f"optim.batch_size={batch}", f"optim.lr_reference_batch={reference} optim.lr=0.01").optim
        rates[batch, reference] = max(learning_rate(step, 100, optim) for step in range(100))
    assert rates == {(32, 8): 0.02, (8, 8): 0.01, (2, 8): 0.005, (32, 0): 0.01}
    for name in preset_names():
        optim = load_config(PRESETS / f"{name}.toml").optim
        assert peak_rate(optim) == optim.lr, name
    train(small_store.path, tmp_path / "run", small_config("optim.epochs=0.4 optim.batch_size=2"), fold=0)
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["peak_learning_rate"] == 0.00075


def test_synchronised_batch_norm_shares_the_averages_tensors(small_store: Store) -> None:
    """Neither the average nor a recomputed pass may lose the statistics; one process evaluates the average."""
    trainer = make_trainer(small_store, "run.sync_batch_norm=true model.name=unet")
    norms = [m for m in trainer.network.modules() if isinstance(m, BatchNormReLU)]
    assert len(norms) == 10
    assert all(m.synchronized for m in norms)
    assert not any(m.synchronized for m in trainer.average.network.modules() if isinstance(m, BatchNormReLU))
    assert set(trainer.network.state_dict()) == set(trainer.average.network.state_dict())
    with torch.no_grad():
        norms[0].running_mean.fill_(3)
    trainer.average.update(10**6)
    first = next(m for m in trainer.average.network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert (first.running_mean > 0).all()
