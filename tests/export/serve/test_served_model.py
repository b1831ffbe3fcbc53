"""Loaded models: their description, and CPU threads that are not more than cores, however many networks run at once."""

import json
import os
from pathlib import Path

import pytest

from attunet.classes import Classes
from attunet.export.serve.answer import description_of
from attunet.export.serve.work import served_model
from attunet.export.serve.work.served_model import load_models
from attunet.fields import Fields


@pytest.mark.parametrize(
    ("cores", "workers", "num_models", "expected"),
    [(8, 2, 1, 7), (8, 2, 2, 4), (8, 4, 2, 3), (8, 8, 1, 1), (2, 2, 3, 1), (2, 4, 1, 1)],
)
def test_networks_that_run_at_once_have_a_thread_for_each_core(
    artefact: Path, monkeypatch: pytest.MonkeyPatch, cores: int, workers: int, num_models: int, expected: int
) -> None:
    monkeypatch.setattr(served_model, "usable_cores", lambda: cores)
    models = load_models([f"m{number}={artefact}" for number in range(num_models)], workers=workers)
    threads = {model.segmenter.backend.options["intra_op_num_threads"] for model in models.values()}
    assert threads == {expected}
    # Those of every session that can run, and the ones that called them
    assert min(num_models, workers) * (expected - 1) + workers <= max(cores, workers)


def test_a_number_of_threads_that_is_given_stays(artefact: Path) -> None:
    (model,) = load_models([artefact], workers=2, num_threads=3).values()
    assert model.segmenter.backend.options["intra_op_num_threads"] == 3


def test_a_session_starts_so_many_threads(artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_model, "usable_cores", lambda: 5)
    before = len(os.listdir("/proc/self/task"))
    loaded = load_models([artefact], workers=2)
    assert loaded
    assert len(os.listdir("/proc/self/task")) - before == 3  # 4 with the caller's own


def test_the_client_reads_every_description(save_artefact) -> None:
    """Values of classes as an artefact has them: with gaps, negative, large."""
    classes = Classes(("background", "liver", "right kidney", "left kidney", "spleen"), (0, -3, 70_000, 2**31 - 1, 7))
    (model,) = load_models([save_artefact("strange.onnx", classes=classes)]).values()
    assert description_of(Fields(json.loads(json.dumps(model.describe())), "server")) == model.describe()
