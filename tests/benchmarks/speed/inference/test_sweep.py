"""Every form of a network is timed in one process, and each computes the same logits."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attunet.errors import InputError

pytest.importorskip("torch", reason="networks are made with torch")
pytest.importorskip("onnx", reason="artefacts are written with onnx")

from attunet.benchmarks.speed.inference import sweep
from attunet.benchmarks.speed.inference.forms import Form, Subject, fresh_network, on_cpu
from attunet.benchmarks.speed.inference.sweep import measure, only_named, table


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(fresh_network("unet", width=4), (32, 48), tmp_path_factory.mktemp("subject"))


def test_all_forms_on_the_cpu_agree(log_lines: list[str], subject: Subject) -> None:
    results = measure(on_cpu(subject, num_threads=1), {}, batch_sizes=(1, 2), runs=3, seconds=0.01)
    json.dumps(results, allow_nan=False)
    rows = {(row["name"], row["shape"][0]): row for row in results["rows"]}
    assert len(rows) + 2 * len(results["skipped"]) == 2 * 10
    for (name, batch), row in rows.items():
        assert row["logits_differ_by"] < (0.2 if "int8" in name else 1e-4), name
        assert row["shape"] == [batch, 1, 32, 48]
    assert "Segmenter int8 cpu" in table(results)


def test_what_does_not_load_is_skipped_with_the_reason_and_an_unknown_name_refused(
    log_lines: list[str], subject: Subject, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    only = ("Segmenter fp32 cpu", "Segmenter fp32 openvino")
    makers = on_cpu(subject, num_threads=1)
    results = measure(only_named(makers, only), {}, batch_sizes=(1,), runs=3, seconds=0.01)
    assert list(results["skipped"]) == ["Segmenter fp32 openvino"]
    assert "attunet[openvino]" in log_lines[0]
    with pytest.raises(InputError, match="'abacus'"):
        only_named(makers, ["abacus"])


def test_a_form_that_fails_in_its_first_pass_costs_no_other_form(subject: Subject) -> None:
    def fails() -> None:
        raise LookupError("cannot be compiled")

    def form(call: Callable[[], None]) -> Form:
        return Form(lambda slices: call, lambda batch_size: np.zeros((batch_size, 1, 32, 48), np.float32))

    makers = {"compiled": lambda: form(fails), "eager": lambda: form(lambda: None)}
    results = measure(makers, {}, batch_sizes=(1, 2), runs=3, seconds=0.01)
    assert [row["name"] for row in results["rows"]] == ["eager", "eager"]
    assert table(results).splitlines()[3:] == [f"skipped: compiled, batch {n}: cannot be compiled" for n in (1, 2)]


def test_artefacts_are_files_of_their_precision(subject: Subject) -> None:
    from attunet.export.artefact.artefact_file import read_artefact

    paths: dict[str, Path] = {
        precision: subject.artefact(precision, pixel_shuffle=False) for precision in ("fp32", "fp16")
    }
    assert {name: read_artefact(path).precision for name, path in paths.items()} == {"fp32": "fp32", "fp16": "fp16"}


def test_rows_of_known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(calls: list, *, seconds: float, max_runs: int) -> list[np.ndarray]:
        return [np.full(max_runs, t) for t in (0.004, 0.001)]

    monkeypatch.setattr(sweep, "time_interleaved", timed)
    idle = Form(lambda slices: lambda: None, lambda batch_size: np.zeros((batch_size, 1, 32, 48), np.float32))
    results = measure({"slow": lambda: idle, "fast": lambda: idle}, {}, batch_sizes=(1, 2), runs=4, seconds=5)
    rows = results["rows"]
    assert [(row["name"], row["shape"]) for row in rows] == [
        *(("slow", [1, 1, 32, 48]), ("fast", [1, 1, 32, 48])),
        *(("slow", [2, 1, 32, 48]), ("fast", [2, 1, 32, 48])),
    ]
    assert {row["runs"] for row in rows} == {4}
    assert {row["times_the_first"] for row in rows if row["name"] == "fast"} == {4.0}
    assert [row["slices_per_s"] for row in rows[:3]] == pytest.approx([250, 1000, 500])
    json.dumps(results, allow_nan=False)
    assert len(table(results).splitlines()) == 5


def test_models_are_timed_as_they_are(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    artefact = str(subject.artefact("fp32", pixel_shuffle=False))
    options = ["--threads", "1", "--batch-sizes", "1", "--runs", "3"]
    monkeypatch.setattr(sys, "argv", ["sweep", artefact, *options])
    sweep.main()
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert (row["name"], row["shape"], row["logits_differ_by"]) == ("timed (onnxruntime cpu)", [1, 1, 32, 48], None)


def test_a_wrong_model_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["sweep", str(tmp_path / "missing.onnx")])
    with pytest.raises(SystemExit) as stopped:
        sweep.main()
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
