"""A training on arrays that are not those that were prepared ends in one line, and is never finished."""

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from small_trainings import small_config

from attunet.errors import InputError
from attunet.runs.load_run import load_run
from attunet.runs.read_checkpoint import newest_checkpoint
from attunet.runs.run_folder import read_metrics
from attunet.store import Store, open_store
from attunet.system.stop_signals import Stopped
from attunet.training.loop import train


@pytest.fixture
def copied(small_store: Store, tmp_path: Path) -> Path:
    shutil.copytree(small_store.path, tmp_path / "store")
    return tmp_path / "store"


def require_unfinished(run: Path) -> None:
    newest = newest_checkpoint(run / "checkpoints")
    assert newest is None or not newest.state.finished


@pytest.mark.parametrize("tier", ["resident", "streamed"])
@pytest.mark.parametrize("part", ["training", "held out"])
def test_labels_that_were_shifted_end_the_training(copied: Path, tmp_path: Path, part: str, tier: str) -> None:
    training, held_out = open_store(copied).split(0)
    path = copied / "cases" / (training if part == "training" else held_out)[-1] / "label.npy"
    np.save(path, np.roll(np.load(path), 3, axis=1))
    config = small_config("optim.epochs=2", "run.resident_gb=0" if tier == "streamed" else "")
    with pytest.raises(InputError, match=rf"^{path}: is not the array that was prepared .*; remove the store") as error:
        train(copied, tmp_path / "run", config, fold=0)
    assert "\n" not in str(error.value)
    require_unfinished(tmp_path / "run")


def test_a_training_that_cannot_read_all_arrays_is_not_finished(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("attunet.training.verification.verify_case", fail)
    with pytest.raises(InputError, match=r"store: its arrays cannot be compared with their SHA-256: MemoryError"):
        train(copied, tmp_path / "run", small_config("optim.epochs=2"), fold=0)
    require_unfinished(tmp_path / "run")


def test_no_snapshot_is_the_end_of_a_training_that_cannot_read_all_arrays(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def fail_at_the_end(*_: object) -> None:
        while not any(row["event"] == "native" for row in read_metrics(run)):
            time.sleep(0.05)
        raise MemoryError

    monkeypatch.setattr("attunet.training.verification.verify_case", fail_at_the_end)
    with pytest.raises(InputError, match="cannot be compared"):
        train(copied, run, small_config("optim.epochs=1 run.snapshots=1"), fold=0)
    assert not (run / "snapshots").exists()


def test_a_training_that_is_stopped_in_its_last_step_is_not_finished(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config("optim.epochs=0.01")
    with monkeypatch.context() as stopped:
        stopped.setattr("attunet.training.loop.Heartbeat.largest", lambda *_: signal.SIGTERM)
        with pytest.raises(Stopped):
            train(small_store.path, tmp_path, config, fold=0)
    assert load_run(tmp_path).step == 1
    require_unfinished(tmp_path)
    train(small_store.path, tmp_path, config, fold=0, resume="require")
    assert load_run(tmp_path).finished
    assert [row["event"] for row in read_metrics(tmp_path)].count("native") == 1


def test_names_that_a_call_hides_are_not_in_the_log_of_its_error(copied: Path, tmp_path: Path) -> None:
    name = open_store(copied).split(0)[0][-1]
    path = copied / "cases" / name / "label.npy"
    np.save(path, np.roll(np.load(path), 3, axis=1))
    with pytest.raises(InputError):
        train(copied, tmp_path / "run", small_config(), fold=0, pseudonymise=tmp_path / "key.csv")
    log = (tmp_path / "run/logs/rank-0.log").read_text()
    assert "label.npy: is not the array that was prepared" in log
    assert name not in log


def test_arrays_are_compared_where_no_thread_may_have_a_priority_of_its_own(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("attunet.training.verification.os.setpriority", refuse)
    path = copied / "cases" / open_store(copied).split(0)[0][-1] / "label.npy"
    np.save(path, np.roll(np.load(path), 3, axis=1))
    with pytest.raises(InputError, match="is not the array that was prepared"):
        train(copied, tmp_path / "run", small_config("optim.epochs=2"), fold=0)


def test_slices_that_no_array_holds_are_refused_before_memory_is_reserved(copied: Path, tmp_path: Path) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["cases"][0]["num_slices"] = 2**40
    (copied / "manifest.json").write_text(json.dumps(manifest))
    for fold in range(3):
        with pytest.raises(InputError, match=r"image\.npy: must have [0-9,]+ bytes for the 1,099,511,627,776 slices"):
            train(copied, tmp_path / f"run-{fold}", small_config(), fold=fold)
