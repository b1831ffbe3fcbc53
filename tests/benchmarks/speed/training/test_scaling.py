"""A real scaling measurement at a tiny size: every process takes its share, and the figures belong together."""

import json

import pytest

from attunet.benchmarks.speed.training import scaling
from attunet.errors import InputError
from attunet.store import Store

TINY = ["model.base_width=4", "model.depth=2", "run.mixed_precision=no", "run.device=cpu"]


@pytest.mark.slow
@pytest.mark.usefixtures("forked_programs")
def test_one_and_two_processes(small_store: Store) -> None:
    results = scaling.measure(small_store, processes=[1, 2], settings=TINY, batch_size=4, steps=10, rounds=1)
    one, two = results["results"]
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["efficiency"] == 1
    assert one["communication_share"] == one["sent_mb_per_step"] == 0
    assert two["efficiency"] == pytest.approx(two["slices_per_s"] / one["slices_per_s"] / 2)
    assert 0 <= two["communication_share"] < 1
    # Weights, average, two moments
    assert two["sent_mb_per_step"] == pytest.approx(results["checkpoint"]["megabytes"] / 4, rel=0.01)
    assert results["checkpoint"]["saves"] == 4
    assert results["checkpoint"]["stall_ms_p50"] > 0
    assert len(scaling.table(json.loads(json.dumps(results, allow_nan=False))).splitlines()) >= 4


def test_a_batch_that_the_processes_do_not_divide(small_store: Store) -> None:
    with pytest.raises(InputError, match=r"--batch-size: must be a multiple.*got 3 for 2"):
        scaling.measure(small_store, processes=[1, 2], settings=TINY, batch_size=3, steps=10, rounds=1)
