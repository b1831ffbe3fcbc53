"""A real run and its artefact through the evaluator: both backends, memory, curves and attention maps."""

import importlib.util
from pathlib import Path

import pytest

from attunet.benchmarks.evaluation.evaluate import evaluate
from attunet.config import load_config
from attunet.store import Store

pytest.importorskip("torch", reason="a run needs torch")

SETTINGS = (
    "model.base_width=4",
    "optim.epochs=0.3",
    "optim.batch_size=4",
    "run.mixed_precision='no'",
    "run.log_every=1",
)


@pytest.mark.slow
def test_a_run_and_its_artefact_agree(log_lines: list[str], small_store: Store, tmp_path: Path) -> None:
    from attunet.export.build.export_run import export_run
    from attunet.training.loop import train

    run, artefact = tmp_path / "attention", tmp_path / "attention.onnx"
    train(small_store.path, run, load_config(None, SETTINGS), fold=0)
    export_run(run, artefact)
    providers = ("cpu", "openvino") if importlib.util.find_spec("openvino") else ("cpu",)
    results = evaluate(small_store.path, [run, artefact], tmp_path / "out", providers=providers, latency_seconds=0.05)
    torch_row, onnx_row, *others = results["models"]
    assert [row["backend"] for row in others] == [p for p in providers if p != "cpu"]
    assert (torch_row["backend"], onnx_row["backend"]) == ("pytorch", "onnxruntime")
    assert torch_row["num_parameters"] == onnx_row["num_parameters"] > 0
    training, held_out = small_store.split(0)
    for row in results["models"]:
        assert row["seen_cases"] == training
        assert set(row["dice"]["per_case"]) == {*training, *held_out}
        assert 50 < row["peak_memory_mb"] < 4000
        assert row["provider_options"]
    assert all(c["agreement"]["equal_voxels"] > 0.999 for c in results["comparisons"])
    assert len(results["comparisons"]) == len(providers)
    drawn = {path.name for path in (tmp_path / "out/plots").iterdir()}
    assert {"training.png", "attention_attention_pytorch_cpu.png"} <= drawn
    assert not [name for name in drawn if name.startswith("attention_attention_onnx")]
