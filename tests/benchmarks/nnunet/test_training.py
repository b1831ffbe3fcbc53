"""The schedule of nnU-Net's that fits into a time."""

import pytest

pytest.importorskip("torch")

from attunet.benchmarks.nnunet.training import EpochTimes


@pytest.mark.parametrize("seconds", [0.5, 20.0, 600.0, 14_400.0])
@pytest.mark.parametrize("step", [0.01, 0.4, 3.0])
def test_a_schedule_fits(step: float, seconds: float) -> None:
    times = EpochTimes(step, validation=step / 3, rest=1.0)
    epochs, steps, validations = times.schedule(seconds)
    takes = epochs * (steps * times.step + validations * times.validation + times.rest)
    assert takes <= seconds or (epochs == 1 and steps == 1)
    assert 1 <= epochs <= 1000
    assert 1 <= steps <= 250
    assert 1 <= validations <= 50
    if 1 < epochs < 1000:
        assert takes > 0.5 * seconds


def test_its_own_epochs_are_kept_where_fifty_fit() -> None:
    assert EpochTimes(0.01, 0.005, 0.25).schedule(300) == (100, 250, 50)
    assert EpochTimes(0.01, 0.005, 0.25).schedule(1e6) == (1000, 250, 50)


def test_a_checkpoint_of_every_epoch_does_not_take_the_time() -> None:
    epochs, steps, _ = EpochTimes(0.1, 0.03, rest=2.0).schedule(60)
    assert epochs * 2.0 <= 0.2 * 60
    assert steps > 50
