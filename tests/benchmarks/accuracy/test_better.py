"""The planned arms: their order, what is left after an interruption, the table, and one arm on generated cases."""

import dataclasses
import json
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from attunet.benchmarks.accuracy.arms import ARMS, FoldStore, Size, Task, epochs_of, plan
from attunet.benchmarks.accuracy.results import merged, summary, table
from attunet.benchmarks.accuracy.schedule import Pool, run_tasks
from attunet.benchmarks.accuracy.stores import fold_stores
from attunet.benchmarks.accuracy.trainings import better, unfinished
from attunet.benchmarks.accuracy.work import Setup
from attunet.store import Store, open_store


def planned(out: Path) -> list[Task]:
    folds = {scans: [FoldStore(out / f"fold-{fold}", 30 * (scans or 5)) for fold in range(6)] for scans in (None, 1, 2)}
    return plan(ARMS, folds, FoldStore(out / "generated", 300), out, num_seeds=2, size=Size(pretraining_steps=100))


def rows_of(arm: str, kind: str, dice: float, *, network: str = "unet", gain: float = 0.0) -> list[dict]:
    about = {"arm": arm, "kind": kind, "network": network, "seed": 0, "dice": {"liver": dice}}
    means = [dice + i / 100 + gain * (1 + i % 2) for i in range(6)]
    return [about | {"fold": i, "case": f"{i}-a", "patient": str(i), "mean": mean} for i, mean in enumerate(means)]


def test_each_arm_trains_each_network_and_seed_on_each_fold_and_plain_comes_first(tmp_path: Path) -> None:
    tasks = planned(tmp_path)
    assert [task.arm for task in tasks[:30]] == ["plain"] * 30  # 24 trainings and 6 ensembles
    trainings = [task for task in tasks if task.kind == "train"]
    assert len({task.run for task in trainings}) == len(trainings) == 4 * 24 + 5 * 12
    ensembles = [task for task in tasks if task.kind == "ensemble"]
    assert all(len(task.needs) == 4 and {need.parent for need in task.needs} == {task.run} for task in ensembles)
    for task in trainings:
        assert (task.init is not None) == task.arm.endswith("generated")
    (pretraining,) = [task for task in tasks if task.kind == "pretrain"]
    assert all(task.needs == (pretraining.run,) for task in trainings if task.init)


def test_few_scans_get_a_fixed_number_of_steps() -> None:
    for slices in (26, 39, 77):
        assert -(-epochs_of(1500, slices) * slices // 8) == 1500


def test_only_what_is_missing_is_left(tmp_path: Path) -> None:
    tasks = planned(tmp_path)
    rows = [
        {"arm": task.arm, "network": task.network, "seed": task.seed, "fold": task.fold}
        for task in tasks
        if task.kind == "train" or (task.kind == "ensemble" and task.fold > 0)
    ]
    left = unfinished(tasks, rows)
    assert {task.fold for task in left} == {0}
    assert {task.kind for task in left} == {"train", "ensemble"}  # members are gone, and the ensembles need them
    assert unfinished(tasks, [*rows, *({"arm": t.arm, "network": "all", "seed": -1, "fold": 0} for t in left)]) == []


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
    assert "residual unet against" not in text  # told in the JSON, decides nothing
    assert len(text.splitlines()) < 60


def test_a_fold_trains_on_as_many_scans_as_asked(small_store: Store, tmp_path: Path) -> None:
    patients = {case.patient for case in small_store.cases if case.labelled}
    for scans in (1, None):
        folds = fold_stores(small_store, tmp_path, scans)
        held_out = [open_store(fold.path).split(0)[1] for fold in folds]
        assert len(folds) == len(patients)
        assert {len(cases) for cases in held_out} == {len(patients) - 1 if scans == 1 else 1}


@pytest.mark.slow
def test_an_arm_is_trained_judged_and_kept(small_store: Store, tmp_path: Path) -> None:
    arms = [dataclasses.replace(ARMS[0], networks=("unet", "attention_unet"))]
    size = Size(("model.base_width=4", "model.depth=2"), epochs=1.0)
    results = better(small_store, tmp_path, arms=arms, minutes=5, processes=2, device="cpu", seeds=1, size=size)
    cases = sum(case.labelled for case in small_store.cases)
    assert [row["kind"] for row in results["rows"]].count("single") == 2 * cases
    assert [row["kind"] for row in results["rows"]].count("snapshots") == 2 * cases
    assert [row["kind"] for row in results["rows"]].count("ensemble") == cases
    assert results["left"] == 0
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == results["rows"]
    again = better(small_store, tmp_path, arms=arms, minutes=5, processes=1, device="cpu", seeds=1, size=size)
    assert again["trainings"] == []
    assert again["summary"] == results["summary"]


@pytest.mark.slow
def test_a_failure_costs_only_what_needs_it(tmp_path: Path) -> None:
    missing = tmp_path / "no-store"
    tasks = [
        Task("train", "a", "unet", 0, 0, missing, tmp_path / "one"),
        Task("train", "a", "unet", 0, 1, missing, tmp_path / "two", needs=(tmp_path / "one",)),
        Task("train", "a", "unet", 0, 2, missing, tmp_path / "three"),
    ]
    results = []
    with Pool(1, Setup(tmp_path, "cpu", tmp_path)) as pool:
        run_tasks(tasks, pool, time.monotonic() + 60, done=set(), report=results.append)
    assert [result.task.fold for result in results] == [0, 2]
    assert all("InputError" in result.error for result in results)
