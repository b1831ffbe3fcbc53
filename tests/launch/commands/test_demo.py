"""The demo from end to end, much shortened: it has to come through, not to be good."""

import json
from functools import partial
from pathlib import Path

import pytest
from small_trainings import set_options

from attunet.config import MODELS
from attunet.phantom import write_phantom

QUICK = ("--cases=3", *set_options("optim.epochs=0.3 optim.batch_size=auto run.device=auto"))


def interrupt(*arguments: object, **named: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def small_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generated cases with a sixteenth of the pixels."""
    monkeypatch.setattr("attunet.phantom.write_phantom", partial(write_phantom, reduce=4))


@pytest.mark.slow
@pytest.mark.usefixtures("no_measuring", "small_cases")
def test_the_whole_way_after_an_interruption_and_a_call_afterwards(
    attunet, succeed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo"
    with monkeypatch.context() as before_export:
        before_export.setattr("attunet.export.build.export_run.export_run", interrupt)
        assert attunet("demo", "--out", out, *QUICK).code == 130
    done = succeed("demo", "--out", out, *QUICK)
    assert "unet: this training is finished" in done.out
    for expected in (f"{name} ({how} cpu)" for name in MODELS for how in ("pytorch", "onnxruntime")):
        assert expected in done.out
    results = json.loads((out / "evaluation" / "results.json").read_text())
    assert [row["seen_cases"] for row in results["models"]] == [[]] * 2 * len(MODELS)
    assert (out / "evaluation" / "results.md").exists()
    assert len(list((out / "evaluation" / "plots").glob("*.png"))) >= 6

    page = (out / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert f"open it in a browser: {(out / 'evaluation' / 'report.html').as_uri()}" in done.out
    assert "Loss of every run" in page
    assert "attunet export attention_unet attention_unet.onnx" in page
    assert "attention_unet (pytorch cpu): gate 2 (finest)" in page
    assert str(tmp_path) not in page

    changed = (out / "models" / "unet.onnx").stat().st_mtime_ns
    sheet = out / "evaluation" / "plots" / "cases.png"
    sheet.unlink()  # as a kill behind the evaluation leaves it
    again = attunet("demo", "--out", out, *QUICK)
    assert again.code == 0
    assert "this demo is finished" in again.out.splitlines()[0]
    assert "attention_unet (onnxruntime cpu)" in again.out
    assert (out / "models" / "unet.onnx").stat().st_mtime_ns == changed
    assert sheet.exists()

    other = attunet("demo", "--out", out, *QUICK, "--set", "optim.epochs=1")
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert "was made with other config; name another folder" in other.err


def test_a_folder_with_a_lock_or_the_draft_of_a_killed_call_is_empty(
    attunet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attunet.phantom.write_phantom", interrupt)
    out = tmp_path / "demo"
    out.mkdir()
    for name in (".demo.lock", ".1-01234567.partial.demo.json"):
        (out / name).touch()
    assert attunet("demo", "--out", out, *QUICK).code == 130
    assert (out / "demo.json").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine").touch()
    done = attunet("demo", "--out", tmp_path / "other", *QUICK)
    assert (done.code, "must be a new or an empty folder" in done.err) == (2, True)
