"""From the scans' hashes to the artefact's."""

import json
import shutil
from pathlib import Path

import pytest
from small_trainings import set_options

from attunet.export.artefact.artefact_file import read_artefact
from attunet.runs.load_run import load_run
from attunet.store import Store
from attunet.system.atomic_files import sha256

SHORTLY = ("--latency-seconds", 0.05)


def test_an_artefact_names_its_checkpoint_store_and_scans(
    attunet, succeed, run: Path, artefact: Path, small_store: Store
) -> None:
    done = succeed("inspect", artefact, "--lineage")
    lines = [line.split()[:2] for line in done.out.splitlines()]
    assert lines[0] == ["artefact", sha256(artefact)]
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    assert lines[1] == ["checkpoint", sha256(checkpoint / "manifest.json")]
    assert lines[2] == ["store", sha256(small_store.path / "manifest.json")]
    training, _ = small_store.split(0)
    assert lines[3:] == [["scan", case.image_sha256] for case in small_store.cases if case.name in training]
    assert attunet("inspect", run, "--lineage").out.splitlines() == done.out.splitlines()[1:]


def test_a_store_has_no_lineage(attunet, small_store: Store) -> None:
    done = attunet("inspect", small_store.path, "--lineage")
    assert (done.code, "needs an artefact" in done.err) == (2, True)


def test_an_artefact_names_the_parent_of_its_weights_by_hash(
    attunet, succeed, run: Path, small_store: Store, tmp_path: Path
) -> None:
    model = load_run(run).config.model
    options = (
        "--fold=0",
        f"--model={model.name}",
        "--init",
        run,
        *set_options(f"model.depth={model.depth} optim.epochs=1"),
    )
    succeed("train", small_store.path, tmp_path / "child", *options)
    succeed("export", tmp_path / "child", tmp_path / "child.onnx", "--parity-cases", 1, "--all-components")
    (weights,) = (run / "checkpoints").glob("step-*/average.safetensors")
    parent = {"name": run.name, "sha256": sha256(weights)}
    assert read_artefact(tmp_path / "child.onnx").parent == parent
    line = f"parent      {parent['sha256']}  {parent['name']}, the weights that the training started from"
    assert line in attunet("inspect", tmp_path / "child.onnx", "--lineage").out.splitlines()
    assert line in attunet("inspect", tmp_path / "child", "--lineage").out.splitlines()
    started = f"started from     {run.name} ({parent['sha256'][:12]})"
    assert started in attunet("inspect", tmp_path / "child.onnx").out.splitlines()


@pytest.mark.slow
@pytest.mark.usefixtures("no_measuring")
def test_what_the_parent_has_seen_is_left_out_nowhere(
    attunet, succeed, run: Path, small_store: Store, tmp_path: Path
) -> None:
    model, child, artefact = load_run(run).config.model, tmp_path / "child", tmp_path / "child.onnx"
    options = (f"--model={model.name}", "--init", run, *set_options(f"model.depth={model.depth} optim.epochs=1"))
    trained = succeed("train", small_store.path, child, "--fold=1", *options)
    left_out = small_store.split(1)[1]
    assert f"{run.name} was trained on {', '.join(left_out)}, or on their patients; they count as seen" in trained.out
    assert "left out  nothing" in attunet("inspect", child).out
    succeed("export", child, artefact, "--parity-cases", 1, "--all-components")
    dice = read_artefact(artefact).dice_at_export
    assert dice is not None
    assert dice["cases"] == "training"
    succeed("evaluate", small_store.path, child, artefact, "--fold", 1, "--out", tmp_path / "out", *SHORTLY)
    for row in json.loads((tmp_path / "out/results.json").read_text())["models"]:
        assert (row["seen_cases"], row["dice"]["mean"]) == (left_out, None)


def test_an_ensemble_names_the_checkpoint_of_every_member(succeed, run: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        shutil.copytree(run, tmp_path / "both" / name)
    done = succeed("inspect", tmp_path / "both", "--lineage")
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    line = f"checkpoint  {sha256(checkpoint / 'manifest.json')}"
    assert [text.startswith(line) for text in done.out.splitlines()[:3]] == [True, True, False]
