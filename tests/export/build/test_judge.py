"""Device and number of cases of the parity check."""

import logging
from pathlib import Path

import click
import pytest
import torch

from attunet.errors import InputError, RunError
from attunet.export.build.judge import _cases_in_time, judge, open_artefact
from attunet.launch.options import PARITY_CASES
from attunet.runs.ensemble import load_runs
from attunet.store import Store

CASES = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("seconds", "limit", "kept"), [(1, 120, 4), (50, 120, 2), (500, 120, 1), (500, None, 4), (0, 120, 4)]
)
def test_as_many_cases_as_the_time_allows(seconds: float, limit: float | None, kept: int) -> None:
    assert _cases_in_time(CASES, seconds, limit) == CASES[:kept]


def test_a_long_check_says_how_long(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "attunet"):
        _cases_in_time(CASES, 1, 120)
        assert not caplog.text
        _cases_in_time(CASES, 50, 120)
    assert "parity on 2 of 4 cases takes about 1.7 minutes (--parity-cases)" in caplog.text


def test_another_provider_is_one_line(artefact: Path) -> None:
    with pytest.raises(InputError, match="provider: must be cpu or cuda, got 'openvino'"):
        open_artefact(artefact, "openvino")


def test_fp16_is_judged_on_a_gpu_where_one_works(
    save_artefact, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    draft = save_artefact(precision="fp16")
    assert open_artefact(draft, None).provider == "cpu"  # no GPU here
    if torch.cuda.is_available():
        pytest.skip("the rest is of a machine whose GPU ONNX Runtime cannot use")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with caplog.at_level(logging.INFO, "attunet"):
        assert open_artefact(draft, None).provider == "cpu"
    assert "parity is judged on the CPU: provider: cuda" in caplog.text
    with pytest.raises(RunError, match="provider: cuda"):
        open_artefact(draft, "cuda")


def test_parity_cases_are_a_number_or_all() -> None:
    assert PARITY_CASES.convert("all", None, None) == "all"
    assert PARITY_CASES.convert("3", None, None) == 3
    for wrong in ("0", "-1", "some", "1.5"):
        with pytest.raises(click.BadParameter, match="must be a whole number from 1 or all"):
            PARITY_CASES.convert(wrong, None, None)


@pytest.mark.slow
def test_the_number_of_cases_is_kept(run: Path, small_store: Store, artefact: Path) -> None:
    trained, segmenter = load_runs(run), open_artefact(artefact, None)
    assert len(judge(trained, small_store, segmenter, 1).checkpoint_raw) == 1
    assert len(judge(trained, small_store, segmenter, "all").checkpoint_raw) == len(trained.held_out)
