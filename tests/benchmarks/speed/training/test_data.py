"""The loader's benchmark on small stores: rows for every size and tier, and stores that any command opens."""

import json
from pathlib import Path

import pytest
from forked import SERVER

from attunet.benchmarks.speed.training import data
from attunet.benchmarks.speed.training.generated_store import repeated_store
from attunet.store import Store, open_store


def test_cases_are_repeated_into_a_store_of_the_asked_size(small_store: Store, tmp_path: Path) -> None:
    made = repeated_store(small_store, tmp_path / "large", 100)
    training, held_out = open_store(made.path).split(0)
    assert 100 <= sum(made.case(case).num_slices for case in training) < 110
    assert held_out == small_store.split(0)[1]
    assert (made.label(training[-1]) == small_store.label(training[-1].rpartition("-")[0])).all()


def test_every_size_and_tier_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in a process of its own, which need not import PyTorch anew here."""
    monkeypatch.setattr(data, "get_context", lambda _: SERVER)
    settings = data.Settings(side=32, batch_size=4, seconds=0.1, rounds=1, device="cpu")
    results = json.loads(json.dumps(data.benchmark([60, 120], settings, tmp_path), allow_nan=False))
    assert [(row["num_slices"], row["tier"]) for row in results["results"]] == [
        *((60, "resident"), (60, "streamed")),
        *((120, "resident"), (120, "streamed")),
    ]
    for row in results["results"]:
        assert row["slices_per_s_p50"] > 0
        assert row["resident_mb_end"] > 10
    assert results["results"][0]["times_resident"] == 1
    assert len(data.table(results).splitlines()) >= 5
