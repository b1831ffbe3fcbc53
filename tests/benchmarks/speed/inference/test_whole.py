"""A whole graph and the ordinary form are timed on one scan, and give the same labels."""

import json

import pytest

from attunet.errors import InputError, RunError

pytest.importorskip("torch", reason="networks are made with torch")
pytest.importorskip("onnx", reason="artefacts are written with onnx")

from attunet.benchmarks.speed.inference.whole import FORMS, measure, table

SMALL = {"provider": "cpu", "width": 4, "sizes": [32], "slices": 9, "runs": 2, "num_threads": 1}


def test_both_ways_are_timed_and_agree() -> None:
    results = measure(**SMALL, precisions=["fp32", "int8"])
    json.dumps(results, allow_nan=False)
    assert [row["precision"] for row in results["rows"]] == ["fp32", "int8"]
    for row in results["rows"]:
        assert row["scan"] == [48, 48, 9]
        assert row["classes"] > 1
        assert row["differ"] <= {"fp32": 1e-4, "int8": 1e-2}[row["precision"]] * row["voxels"]
        assert all(row[form]["wall_ms_p50"] > 0 for form in FORMS)
        assert row["ratio_wall"] == pytest.approx(row["whole"]["wall_ms_p50"] / row["ordinary"]["wall_ms_p50"])
    assert "int8" in table(results)


def test_what_the_provider_does_not_run_is_skipped_with_the_reason(log_lines: list[str]) -> None:
    with pytest.raises(RunError, match="int8 artefact runs on cpu or openvino"):
        measure(**(SMALL | {"provider": "cuda"}), precisions=["int8"])
    assert any(line.startswith("skipped: int8, 32: ") for line in log_lines)


@pytest.mark.parametrize("wrong", [{"sizes": [40]}, {"slices": 0}, {"runs": 0}])
def test_wrong_numbers_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="must be at least"):
        measure(**(SMALL | wrong), precisions=["fp32"])
