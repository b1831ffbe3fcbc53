"""A training within a time: a number of steps that fits, and from then on an ordinary training."""

import errno
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

import pytest
from small_trainings import make_trainer, small_config

from attunet.config import load_config
from attunet.errors import InputError
from attunet.runs.checkpoint import snapshot_steps
from attunet.runs.load_run import load_run
from attunet.runs.run_folder import RunFolder, read_metrics
from attunet.store import Store
from attunet.system.stop_signals import Stopped
from attunet.training.loop import train
from attunet.training.optimization import PEAK_SHARE
from attunet.training.time_plan import VALIDATIONS_PER_RUN, Costs, TimePlan, plan_steps
from attunet.training.trainer import Trainer
from attunet.training.validation import Validator

COSTS = Costs(step=0.5, validation=3.0, native=10.0, checkpoint=1.0, plot=2.0)


class Started(Exception):
    """Raised in place of the first step."""


def stop(*arguments: object) -> None:
    raise Started


@pytest.mark.parametrize("seconds", [60.0, 600.0, 36000.0])
@pytest.mark.parametrize("checkpoints", [0, 3])
def test_everything_fits_and_one_more_step_would_not(seconds: float, checkpoints: int) -> None:
    steps = plan_steps(COSTS, seconds, steps_per_validation=None, checkpoints=checkpoints)
    taken = 0.5 * steps + VALIDATIONS_PER_RUN * 3.0 + 10.0 + (1 + checkpoints) * 1.0 + 2.0
    assert taken <= seconds < taken + 0.5


def test_validations_at_given_steps_are_counted() -> None:
    steps = plan_steps(COSTS, 600.0, steps_per_validation=20, checkpoints=0)
    taken = 0.5 * steps + (steps // 20 + 1) * 3.0 + 13.0
    assert 580 < taken <= 600


def test_too_little_time_is_said() -> None:
    with pytest.raises(InputError, match=r"run\.minutes: too little time: .* take 0\.4 minutes more"):
        plan_steps(COSTS, 20.0, steps_per_validation=None, checkpoints=0)


def test_a_folder_in_which_the_time_was_too_little_can_be_used(small_store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run\.minutes: too little time"):
        train(small_store.path, tmp_path / "run", small_config("run.minutes=0.001"), fold=0)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_while_a_checkpoint_is_measured_is_named_and_leaves_nothing(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run, config = tmp_path / "run", small_config("run.minutes=1")
    monkeypatch.setattr("attunet.training.time_plan.REHEARSAL_SHARE", 0.0)
    monkeypatch.setattr("attunet.training.loop._run_steps", stop)
    with monkeypatch.context() as full:
        full.setattr("attunet.training.time_plan.save", fill)
        with pytest.raises(OSError, match=f"No space left on device: '{run}/checkpoints"):
            train(small_store.path, run, config, fold=0)
    with pytest.raises(Started):
        train(small_store.path, run, config, fold=0)


class Clock:
    """In place of the module `time`."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@dataclass
class Simulated:
    """A training that takes no time: its trainer, its steps, the step after which its plan was final, its minutes."""

    trainer: Trainer
    done: int = 0
    final_at: int = 0
    took: float = 0.0


@pytest.fixture
def simulate(small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Simulated]:
    def run(costs: Costs, minutes: float, factors: tuple[float, ...], *settings: str) -> Simulated:
        """factors: seconds of a step in parts of the minutes, as multiples of those that were measured."""
        clock = Clock()
        monkeypatch.setattr("attunet.training.time_plan.time", clock)
        monkeypatch.setattr("attunet.training.time_plan.measure", lambda *arguments: costs)
        trainer = make_trainer(small_store, f"run.minutes={minutes} optim.schedule=trapezoid", *settings)
        validator = Validator(small_store, [], trainer.accelerator, trainer.config.optim, None)
        plan, made = TimePlan(trainer, validator, RunFolder(tmp_path), 0.0), Simulated(trainer)
        while made.done < trainer.total_steps:
            clock.now += costs.step * factors[min(int(clock.now / 60 / minutes * len(factors)), len(factors) - 1)]
            made.done += 1
            clock.now += costs.validation * (made.done % plan.validate_every == 0)
            if made.done < trainer.total_steps and plan.correct(made.done):
                made.final_at = made.done
        made.took = (clock.now + costs.validation + costs.native + costs.checkpoint + costs.plot) / 60
        return made

    return run


@pytest.mark.parametrize(("snapshots", "rising"), [(0, 0.1), (5, 0.1), (0, 0.9)])
@pytest.mark.parametrize("factors", [(1,), (0.5,), (1.5,), (3,), (1.2, 0.9), (0.9, 1.2), (1, 1, 1, 1.2)])
def test_a_plan_follows_the_speed_of_the_machine(
    factors: tuple[float, ...], snapshots: int, rising: float, simulate: Callable[..., Simulated]
) -> None:
    settings = f"run.snapshots={snapshots} optim.warmup_fraction={rising}"
    made = simulate(COSTS, 4.0, factors, settings)
    warmup = round(rising * plan_steps(COSTS, 0.98 * 240, steps_per_validation=None, checkpoints=1))
    assert 0 < made.final_at <= PEAK_SHARE * made.done
    assert made.final_at <= min(snapshot_steps(snapshots, made.done), default=math.inf)
    assert round(made.trainer.config.optim.warmup_fraction * made.done) == warmup
    assert 0.9 * 4 < made.took < 1.1 * 4 or made.done == warmup


@pytest.mark.parametrize("factor", [1, 1.3])
@pytest.mark.parametrize("minutes", [3, 4, 5, 7])
def test_a_plan_of_few_long_steps_does_not_grow_while_it_is_corrected(
    minutes: float, factor: float, simulate: Callable[..., Simulated]
) -> None:
    made = simulate(Costs(step=14, validation=8.5, native=8, checkpoint=1, plot=1), minutes, (factor,))
    assert made.took < 1.1 * minutes + 23 / 60  # a step and its validation


def test_a_training_that_is_stopped_before_its_plan_is_final_keeps_the_number_of_its_checkpoint(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_at_checkpoint(self: object, step: int) -> bool:
        if step == 3:
            raise Stopped(15)
        return step == 2

    numbers = chain([9, 14], repeat(12))
    with monkeypatch.context() as patched:
        patched.setattr("attunet.training.time_plan.plan_steps", lambda *arguments, **options: next(numbers))
        patched.setattr("attunet.training.time_plan.measure", lambda *arguments: Costs(1e-3))
        patched.setattr("attunet.runs.checkpoint.Checkpoints.due", stop_at_checkpoint)
        with pytest.raises(Stopped):
            train(small_store.path, tmp_path, small_config("run.minutes=1"), fold=0)
    train(small_store.path, tmp_path, small_config("run.minutes=1"), fold=0, resume="require")
    assert load_run(tmp_path).step == 15
    assert load_run(tmp_path).finished


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["auto", "one_cycle"])
def test_a_timed_training_is_the_ordinary_one_of_its_steps(
    schedule: str, small_store: Store, tmp_path: Path, log_lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured for real; the numbers of steps are given, because machines differ."""
    numbers = chain([9, 14, 11], repeat(9))  # in all, and then those that are left at each correction
    monkeypatch.setattr("attunet.training.time_plan.plan_steps", lambda *arguments, **options: next(numbers))
    timed, plain = tmp_path / "timed", tmp_path / "plain"
    asked = small_config(f"run.minutes=0.1 optim.epochs=1 run.checkpoint_every_steps=5 optim.schedule={schedule}")
    train(small_store.path, timed, asked, fold=0)
    run = load_run(timed)
    is_corrected = schedule == "auto"
    assert any(f"0.1 minutes: {'about ' * is_corrected}9 steps" in line for line in log_lines)
    assert run.finished
    assert (run.step != 9) == is_corrected
    config = load_config(timed / "config.toml", ["run.minutes=0"])
    assert load_config(timed / "config.toml").to_json() == run.config.to_json()
    train(small_store.path, plain, config, fold=0)
    for part in ("model", "average", "optimizer"):
        name = f"checkpoints/step-{run.step:010d}/{part}.safetensors"
        assert (timed / name).read_bytes() == (plain / name).read_bytes(), part
    validated = [[row["step"] for row in read_metrics(one) if row["event"] == "validation"] for one in (timed, plain)]
    assert validated[0] == validated[1]


@pytest.mark.parametrize("continued", ["run.minutes=1", "run.minutes=9", "optim.epochs=3", "optim.warmup_fraction=0.5"])
def test_a_timed_training_that_is_resumed_keeps_its_steps(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_lines: list[str], continued: str
) -> None:
    monkeypatch.setattr("attunet.training.loop._run_steps", stop)
    monkeypatch.setattr("attunet.training.time_plan.measure", lambda *arguments: Costs(1e-3))
    monkeypatch.setattr("attunet.training.time_plan.plan_steps", lambda *arguments, **options: 5)
    with pytest.raises(Started):
        train(small_store.path, tmp_path, small_config("run.minutes=1"), fold=0, resume="auto")
    monkeypatch.undo()
    train(small_store.path, tmp_path, small_config(continued), fold=0, resume="auto")
    assert load_run(tmp_path).step == 5
    assert load_run(tmp_path).finished
    assert load_config(tmp_path / "config.toml").run.minutes == 1
    line = f"{continued} changes nothing: a resumed training keeps its plan for 1 minutes"
    assert [one for one in log_lines if "changes nothing" in one] == [line] * (continued != "run.minutes=1")


def test_a_training_by_epochs_that_is_resumed_with_a_time_keeps_its_steps(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    config = small_config("optim.epochs=1 run.checkpoint_every_steps=1")
    with monkeypatch.context() as patched:
        patched.setattr("attunet.training.loop._validate_native", stop)
        with pytest.raises(Started):
            train(small_store.path, tmp_path, config, fold=0)
    train(small_store.path, tmp_path, small_config("run.minutes=1"), fold=0, resume="require")
    assert load_run(tmp_path).config.optim.epochs == 1
    assert load_run(tmp_path).config.run.minutes == 0
    assert any("run.minutes=1 changes nothing" in one for one in log_lines)


def test_a_training_without_a_time_says_before_it_starts_what_it_will_take(
    small_store: Store, tmp_path: Path, log_lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attunet.training.loop._run_steps", stop)
    costs = Costs(step=0.125, validation=3.0, native=10.0, checkpoint=1.0, plot=2.0)
    monkeypatch.setattr("attunet.training.time_plan.measure", lambda *arguments: costs)
    with pytest.raises(Started):
        train(small_store.path, tmp_path, small_config("optim.epochs=auto"), fold=0)
    line = next(line for line in log_lines if "chosen by the data" in line)
    steps = int(line.split()[0])
    minutes = (0.125 * steps + VALIDATIONS_PER_RUN * 3.0 + 13.0) / 60
    assert steps >= 1500
    assert line == f"{steps} steps, chosen by the data, will take about {minutes:.0f} minutes"
