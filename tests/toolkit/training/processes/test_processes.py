"""One, two and three processes: the same loss, the same samples, the same metrics."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import Forked
from measure_processes import measure_processes
from small_trainings import partly_labelled_store

from attunet.config import DataConfig
from attunet.preparation.prepare import prepare
from attunet.store import Store

WriteCase = Callable[..., tuple[Path, Path]]


def measure(processes: int, store: Store, *settings: str) -> dict:
    job = Forked(measure_processes, processes, store.path, settings)
    output = job.communicate(timeout=300)[0]
    assert job.returncode == 0, output[-3000:]
    return dict(json.loads(next(line for line in output.splitlines() if line.startswith("{"))))


@pytest.fixture(scope="module")
def five_cases(tmp_path_factory: pytest.TempPathFactory, write_case: WriteCase) -> Store:
    folder = tmp_path_factory.mktemp("five")
    for number in range(1, 6):
        write_case(folder / "source", f"{number:02d}-T2SPIR", seed=number)
    return prepare(folder / "source", folder / "store", DataConfig(), folds=3)


@pytest.fixture(scope="module")
def partly_labelled(tmp_path_factory: pytest.TempPathFactory, write_case: WriteCase) -> Store:
    return partly_labelled_store(tmp_path_factory.mktemp("partly"), write_case, num_cases=5, folds=3)


@pytest.fixture(scope="module")
def alone(five_cases: Store) -> dict:
    return measure(1, five_cases)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "parts"), [(2, 1), (3, 1), (2, 2)])
def test_many_processes_compute_what_one_does(five_cases: Store, alone: dict, processes: int, parts: int) -> None:
    """Batches of five and five cases, which no number of processes divides. parts: in which each computes its share."""
    together = measure(processes, five_cases, f"optim.accumulate_steps={parts}")
    assert together["processes"] == processes
    assert together["each_once"]
    assert together["losses"] == pytest.approx(alone["losses"], abs=1e-4)
    assert together["losses"][-1] < 0.95 * together["losses"][0]
    assert together["validation"]["dice"] == alone["validation"]["dice"]
    assert together["validation"]["loss"] == pytest.approx(alone["validation"]["loss"], abs=1e-6)


@pytest.mark.slow
def test_partial_labels_have_one_gradient_in_any_number_of_processes(partly_labelled: Store) -> None:
    """Processes differ in the classes that were drawn in their slices."""
    alone, *others = (measure(processes, partly_labelled) for processes in (1, 2, 3))
    largest = max(map(abs, alone["gradient"]))
    for together in others:
        assert together["gradient"] == pytest.approx(alone["gradient"], abs=1e-5 * largest)
        assert together["losses"] == pytest.approx(alone["losses"], abs=1e-4)
        assert together["validation"]["dice"] == alone["validation"]["dice"]


@pytest.mark.slow
def test_synchronised_batch_norm_computes_what_one_process_does(five_cases: Store) -> None:
    """Two steps, before the optimizer has amplified another order of summation."""
    alone, together = (measure(processes, five_cases, "run.sync_batch_norm=true") for processes in (1, 2))
    assert together["losses"][:2] == pytest.approx(alone["losses"][:2], abs=1e-4)
