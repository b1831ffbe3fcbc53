"""Every program really trains, at a tiny size, and the rows say what was measured."""

import json
from pathlib import Path

import pytest

from attunet.benchmarks.speed.training import comparison
from attunet.benchmarks.speed.training.others import Task
from attunet.store import Store

TASK = Task(
    *("", "", ""),
    fold=0,
    model="attention_unet",
    width=4,
    batch_size=2,
    steps=2,
    warm_up_steps=1,
    workers=0,
    dice=0.999,
    minutes=0.02,
    settings=("model.depth=2",),
)


@pytest.mark.slow
def test_programs(small_store: Store, tmp_path: Path) -> None:
    results = comparison.compare(small_store, TASK, programs=comparison.PROGRAMS, rounds=1)
    ours, streamed, plain, monai = results["results"]
    assert [row["name"] for row in results["results"]] == list(comparison.PROGRAMS)
    assert ours["num_parameters"] == streamed["num_parameters"] == plain["num_parameters"] != monai["num_parameters"]
    for row in results["results"]:
        assert row["slices_per_s"] == pytest.approx(2 * row["steps_per_s"])
        assert 0 < row["waiting_share"] < 1
        assert row["peak_memory_mb"] > 50
        assert row["to_dice"]["minutes"] is None
        assert 0 <= row["to_dice"]["best_dice"] < 0.999
    assert ours["times_plain"] == pytest.approx(ours["slices_per_s"] / plain["slices_per_s"])
    assert plain["times_plain"] == monai["times_monai"] == 1
    assert results["settings"]["shape"][:2] == [2, 1]
    assert len(comparison.table(json.loads(json.dumps(results, allow_nan=False))).splitlines()) >= 4
    comparison.draw(results, tmp_path / "bars.png")
    assert (tmp_path / "bars.png").stat().st_size > 5000
