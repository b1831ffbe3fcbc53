"""A real run and its artefact through the evaluator: both backends, memory, curves and attention maps."""

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from attunet.benchmarks.evaluation import evaluate as module
from attunet.benchmarks.evaluation.commands import training_command
from attunet.benchmarks.evaluation.evaluate import evaluate
from attunet.config import load_config
from attunet.store import Store

pytest.importorskip("torch", reason="a run needs torch")

SETTINGS = (
    "model.base_width=4",
    "model.depth=2",
    "optim.epochs=0.3",
    "optim.batch_size=4",
    "run.mixed_precision='no'",
    "run.log_every=1",
)


@pytest.fixture(scope="module")
def models(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run and its artefact."""
    from attunet.export.build.export_run import export_run
    from attunet.training.loop import train

    folder = tmp_path_factory.mktemp("models")
    run, artefact = folder / "attention", folder / "attention.onnx"
    train(small_store.path, run, load_config(None, SETTINGS), fold=0)
    export_run(run, artefact)
    return [run, artefact]


def test_the_command_of_a_run_names_the_model_that_it_started_from(models: list[Path]) -> None:
    from attunet.runs.lineage import Lineage
    from attunet.runs.load_run import load_run

    run = load_run(models[0])
    lineage = Lineage("abdomen", "0" * 64, {"liver": "liver", "spleen": "lien"}, [], "carried", [])
    command = training_command(run, "attention")
    assert command.startswith("attunet train store attention --model attention_unet --fold 0 --set model.base_width=4")
    started = training_command(replace(run, lineage=lineage), "attention")
    assert started == f"{command} --init abdomen --init-classes spleen=lien"


@pytest.mark.slow
def test_a_run_and_its_artefact_agree(models: list[Path], small_store: Store, tmp_path: Path) -> None:
    providers = ("cpu", "openvino") if importlib.util.find_spec("openvino") else ("cpu",)
    results = evaluate(small_store.path, models, tmp_path / "out", providers=providers, latency_seconds=0.05)
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


@pytest.mark.slow
def test_models_that_change_while_they_are_judged_keep_the_cards_that_they_had(
    models: list[Path], small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the work is lost, and no card is of another model than was scored."""
    run = Path(shutil.copytree(models[0], tmp_path / models[0].name))
    artefact = Path(shutil.copy(models[1], tmp_path / models[1].name))
    time_networks = module.time_networks

    def change(*arguments: object) -> object:
        shutil.rmtree(run)
        artefact.write_bytes(b"of another export")
        return time_networks(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "time_networks", change)
    monkeypatch.setattr(module, "peak_memory_mb", lambda *_, **__: None)
    evaluate(small_store.path, [run, artefact], tmp_path / "out", latency_seconds=0.05)
    of_run, of_artefact = json.loads((tmp_path / "out/details.json").read_text())["models"].values()
    assert of_run["card"].split()[:2] == ["run", "attention,"]
    assert of_run["curves"]
    assert of_artefact["card"].split()[:3] == ["artefact", "attention,", "fp32,"]
