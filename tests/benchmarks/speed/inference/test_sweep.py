"""Every form of a network is timed in one process, and each computes the same logits."""

import json
from pathlib import Path

import pytest

from attunet.errors import InputError

pytest.importorskip("torch", reason="networks are made with torch")
pytest.importorskip("onnx", reason="artefacts are written with onnx")

from attunet.benchmarks.speed.inference.forms import Subject, fresh_network
from attunet.benchmarks.speed.inference.sweep import measure, table


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(fresh_network("unet", width=4), (32, 48), tmp_path_factory.mktemp("subject"))


def test_all_forms_on_the_cpu_agree(log_lines: list[str], subject: Subject) -> None:
    results = measure(subject, device="cpu", num_threads=1, batch_sizes=(1, 2), runs=3, seconds=0.01)
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
    import sys

    monkeypatch.setitem(sys.modules, "openvino", None)
    only = ("Segmenter fp32 cpu", "Segmenter fp32 openvino")
    results = measure(subject, device="cpu", num_threads=1, batch_sizes=(1,), only=only, runs=3, seconds=0.01)
    assert list(results["skipped"]) == ["Segmenter fp32 openvino"]
    assert "attunet[openvino]" in log_lines[0]
    with pytest.raises(InputError, match="'abacus'"):
        measure(subject, device="cpu", num_threads=1, batch_sizes=(1,), only=("abacus",))


def test_artefacts_are_files_of_their_precision(subject: Subject) -> None:
    from attunet.export.artefact.artefact_file import read_artefact

    paths: dict[str, Path] = {
        precision: subject.artefact(precision, pixel_shuffle=False) for precision in ("fp32", "fp16")
    }
    assert {name: read_artefact(path).precision for name, path in paths.items()} == {"fp32": "fp32", "fp16": "fp16"}
