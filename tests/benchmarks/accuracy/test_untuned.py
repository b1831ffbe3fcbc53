"""The generated data sets are read as what they stand for, and the comparison continues where it was stopped."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from attunet.benchmarks.accuracy import stand_ins, untuned
from attunet.benchmarks.accuracy.stand_ins import STAND_INS, write_stand_in
from attunet.config import DataConfig
from attunet.preparation.prepare import prepare


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, stand_in in STAND_INS.items():
        monkeypatch.setitem(stand_ins.STAND_INS, name, dataclasses.replace(stand_in, cases=4))


@pytest.mark.parametrize(
    ("name", "normalization", "channels"),
    [("crops", "zscore", 1), ("membranes", "zscore", 1), ("rare", "zscore", 1), ("four channels", "zscore", 4)],
)
def test_prepare_reads_a_data_set_as_users_have_it(
    name: str, normalization: str, channels: int, tmp_path: Path
) -> None:
    write_stand_in(name, tmp_path / "source")
    store = prepare(tmp_path / "source", tmp_path / "store", DataConfig(), folds=2)
    assert (store.spec.normalization, store.spec.num_channels) == (normalization, channels)
    assert len(store.cases) == 4
    labels = [store.read_source(case.name)[1] for case in store.cases]
    assert {value for values in labels for value in np.unique(values)} == set(range(len(store.classes)))


def test_lesions_are_rare() -> None:
    shares = [float((STAND_INS["rare"].make(np.random.default_rng(k))[1] > 0).mean()) for k in range(4)]
    assert 0.0002 < np.mean(shares) < 0.003


def test_a_data_set_that_was_half_written_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(generator: np.random.Generator) -> stand_ins.Case:
        raise KeyboardInterrupt

    with monkeypatch.context() as while_killed:
        while_killed.setitem(STAND_INS, "crops", dataclasses.replace(STAND_INS["crops"], make=killed))
        with pytest.raises(KeyboardInterrupt):
            untuned._store("crops", tmp_path, whole=False)
    store = untuned._store("crops", tmp_path, whole=False)
    assert store is not None
    assert len(store.cases) == 4


@pytest.mark.slow
def test_a_comparison_does_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {change: settings for change, settings in untuned.CHANGES.items() if change in ("auto", "U-Net")}
    monkeypatch.setattr(untuned, "CHANGES", kept)
    tiny = ["model.base_width=4", "model.depth=1", "optim.epochs=0.1", "run.device=cpu"]
    rows = untuned.compare(tmp_path, ["crops"], tiny)
    assert [(row["data"], row["change"]) for row in rows] == [("crops", "auto"), ("crops", "U-Net")]
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == rows
    before = (tmp_path / "results.json").stat().st_mtime_ns
    assert untuned.compare(tmp_path, ["crops"], tiny) == rows
    assert (tmp_path / "results.json").stat().st_mtime_ns == before  # nothing was trained again
    assert untuned.markdown(rows).splitlines()[2].startswith("| crops | hippocampus of the Decathlon | ")
