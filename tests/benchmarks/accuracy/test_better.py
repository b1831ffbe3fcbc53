"""The planned arms: their order, what is left after an interruption, the table, and one arm on generated cases."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

from attunet.benchmarks.accuracy.arms import ARMS, Arm, FoldStore, Training, epochs_of, plan, pretraining
from attunet.benchmarks.accuracy.better import better, unfinished
from attunet.benchmarks.accuracy.results import merged, summary, table
from attunet.benchmarks.accuracy.stores import fold_stores
from attunet.errors import InputError
from attunet.manifest import MANIFEST
from attunet.store import Store, open_store


def planned(out: Path) -> list[Training]:
    folds = {scans: [FoldStore(out / f"fold-{fold}", 30 * (scans or 5)) for fold in range(6)] for scans in (None, 1, 2)}
    return plan(ARMS, folds, out, num_seeds=2)


def rows_of(arm: str, kind: str, dice: float, *, network: str = "unet", gain: float = 0.0) -> list[dict]:
    about = {"arm": arm, "kind": kind, "network": network, "seed": 0, "dice": {"liver": dice}}
    means = [dice + i / 100 + gain * (1 + i % 2) for i in range(6)]
    return [about | {"fold": i, "case": f"{i}-a", "patient": str(i), "mean": mean} for i, mean in enumerate(means)]


def test_each_arm_trains_each_network_and_seed_on_each_fold_and_plain_comes_first(tmp_path: Path) -> None:
    trainings = planned(tmp_path)
    assert [training.arm.name for training in trainings[:24]] == ["plain"] * 24
    assert len({training.run for training in trainings}) == len(trainings) == 5 * 24 + 5 * 12
    folders = {training.run.parent for training in trainings if training.arm.has_ensembles}
    assert len(folders) == 5 * 6
    for folder in folders:  # of an ensemble
        assert len([training for training in trainings if training.run.parent == folder]) == 4
    first = pretraining(tmp_path / "generated", tmp_path, ())
    for training in trainings:
        assert training.init == (first.run if training.arm.name.endswith("generated") else None)


def test_few_scans_get_a_fixed_number_of_steps() -> None:
    for slices in (26, 39, 77):
        assert -(-epochs_of(1500, slices) * slices // 8) == 1500


def test_only_what_is_missing_is_left(tmp_path: Path) -> None:
    trainings = planned(tmp_path)
    rows = [
        {"arm": one.arm.name, "network": network, "seed": seed, "fold": one.fold}
        for one in trainings
        for network, seed in ((one.network, one.seed), ("all", -1))
        if network != "all" or one.fold > 0
    ]
    left = unfinished(trainings, rows)
    assert {training.fold for training in left} == {0}
    assert all(training.arm.has_ensembles for training in left)  # the ensembles need their members
    ensembles = [{"arm": one.arm.name, "network": "all", "seed": -1, "fold": 0} for one in left]
    assert unfinished(trainings, [*rows, *ensembles]) == []


def test_rows_of_the_same_training_are_replaced() -> None:
    old, new = rows_of("plain", "single", 0.8), rows_of("plain", "single", 0.9)
    assert merged(old, new[:1]) == [new[0], *old[1:]]


def test_the_summary_pairs_trainings_and_says_where_the_interval_leaves_out_zero() -> None:
    rows = rows_of("plain", "ensemble", 0.85, network="all")
    for network in ("unet", "attention_unet"):
        rows += rows_of("plain", "single", 0.8, network=network)
        rows += rows_of("residual", "single", 0.8, network=network, gain=0.01)
    result = summary(rows, ARMS)
    plain = next(row for row in result["arms"] if row["arm"] == "plain" and row["network"] == "all")
    assert plain["mean"] == pytest.approx(0.825)
    assert plain["worst"] == {"case": "0-a", "mean": pytest.approx(0.8)}
    assert plain["trainings"] == 12
    by_name = {f"{one['second']} - {one['first']}": one for one in result["comparisons"]}
    residual = by_name["residual single - plain single"]
    assert residual["mean"] == pytest.approx(0.015)
    assert residual["leaves_out_zero"]
    assert by_name["plain ensemble - plain single"]["mean"] == pytest.approx(0.05)
    text = table({"summary": result})
    assert "residual single against plain single" in text
    assert len(text.splitlines()) < 60


def test_a_fold_trains_on_as_many_scans_as_asked(small_store: Store, tmp_path: Path) -> None:
    patients = {case.patient for case in small_store.cases if case.labelled}
    for scans in (1, None):
        folds = fold_stores(small_store, tmp_path, scans)
        held_out = [open_store(fold.path).split(0)[1] for fold in folds]
        assert len(folds) == len(patients)
        assert {len(cases) for cases in held_out} == {len(patients) - 1 if scans == 1 else 1}


def test_results_of_other_settings_are_not_taken(small_store: Store, tmp_path: Path) -> None:
    better(small_store, tmp_path, minutes=0, device="cpu", settings=["optim.epochs=1"])
    better(small_store, tmp_path, minutes=0, device="cpu", settings=["optim.epochs=1"], seeds=3)
    with pytest.raises(InputError, match="was made with other settings; name another folder or remove it"):
        better(small_store, tmp_path, minutes=0, device="cpu")
    changed = shutil.copytree(small_store.path, tmp_path / "other" / small_store.name)
    (changed / MANIFEST).write_text((changed / MANIFEST).read_text() + " ")
    with pytest.raises(InputError, match="was made with other store"):
        better(open_store(changed), tmp_path, minutes=0, device="cpu", settings=["optim.epochs=1"])


@pytest.mark.slow
@pytest.mark.usefixtures("trainings_here")
def test_an_arm_is_trained_judged_and_kept_and_a_failure_costs_only_its_own(small_store: Store, tmp_path: Path) -> None:
    plain, broken = ARMS[0], Arm("broken", "cannot be trained", settings=("model.blocks=none",), networks=("unet",))
    settings = ("model.base_width=4", "model.depth=2", "optim.epochs=1.0")
    short = {"minutes": 5, "device": "cpu", "seeds": 1, "settings": settings}
    results = better(small_store, tmp_path, arms=[broken, plain], processes=2, **short)
    cases = sum(case.labelled for case in small_store.cases)
    assert [row["kind"] for row in results["rows"]].count("single") == 2 * cases
    assert [row["kind"] for row in results["rows"]].count("snapshots") == 2 * cases
    assert [row["kind"] for row in results["rows"]].count("ensemble") == cases
    failed = [one["task"].partition(",")[0] for one in results["trainings"] if "model.blocks" in one["error"]]
    assert failed == ["broken"] * cases
    assert not any(one["error"] for one in results["trainings"] if not one["task"].startswith("broken"))
    assert results["left"] == 0
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == results["rows"]
    again = better(small_store, tmp_path, arms=[plain], processes=1, **short)
    assert again["trainings"] == []
    assert again["summary"] == results["summary"]
