"""Several runs as one model, in PyTorch and as one file."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from attunet.errors import InputError
from attunet.export.build.export_run import export_run
from attunet.export.build.parity import Tolerance
from attunet.export.runtime.segmenter import Segmenter

torch = pytest.importorskip("torch")

from attunet.benchmarks.evaluation.models import load_models  # noqa: E402
from attunet.config import Config, load_config  # noqa: E402
from attunet.export.artefact.card import card  # noqa: E402
from attunet.export.artefact.hub_card import hub_card  # noqa: E402
from attunet.runs.ensemble import load_runs  # noqa: E402
from attunet.runs.load_run import load_run  # noqa: E402
from attunet.training.loop import train  # noqa: E402


@pytest.fixture(scope="module")
def folds(run, small_store, tmp_path_factory):
    """A folder laid out as a cross-validation does: fold 0, and a shorter training of fold 1."""
    folder = tmp_path_factory.mktemp("folds") / "unet"
    shutil.copytree(run, folder / "seed-0/fold-0")
    config = load_run(run).config
    shorter = dataclasses.replace(config, optim=dataclasses.replace(config.optim, epochs=10.0))
    train(small_store.path, folder / "seed-0/fold-1", shorter, fold=1)
    return folder


MAPS = ("labels", "logits", "probabilities", "attention")  # of several tests, so that the ensembles are traced once


def _softmax(logits):
    return torch.from_numpy(logits).softmax(1).numpy()


@pytest.fixture(scope="module")
def exported(folds, tmp_path_factory):
    out = tmp_path_factory.mktemp("ensemble") / "ensemble.onnx"
    export_run(folds, out, outputs=MAPS)
    return out


def test_the_artefact_gives_the_mean_of_the_members_probabilities(folds, exported):
    slices = np.random.default_rng(0).standard_normal((3, 1, 48, 64), dtype=np.float32)
    members = [load_run(folds / f"seed-0/fold-{fold}").network for fold in (0, 1)]
    with torch.inference_mode():
        expected = torch.stack([member(torch.from_numpy(slices)).softmax(1) for member in members]).mean(0).numpy()
    assert abs(expected - _softmax(members[0](torch.from_numpy(slices)).numpy())).max() > 0.05  # the members differ
    segmenter = Segmenter(exported)
    logits, probabilities, deepest = segmenter.run(("logits", "probabilities", "attention_0"), slices)
    np.testing.assert_allclose(np.exp(logits), expected, atol=1e-5)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert deepest.shape == (3, 1, 24, 32)


def test_an_ensemble_has_seen_what_any_member_has(folds, exported, small_store):
    about = Segmenter(exported).metadata
    labelled = {case.name: case.image_sha256 for case in small_store.cases}
    assert about.training_cases == labelled  # each fold's cases are in the other's training
    assert about.num_members == 2
    assert about.dice_at_export["cases"] == "training"
    for one in load_models([folds, exported]):
        assert one.training_hashes == {*labelled.values(), *(case.content_sha256 for case in small_store.cases)}


def test_extreme_logits_stay_finite():
    from attunet.models import SegmentationNetwork
    from attunet.runs.ensemble import EnsembleNetwork

    class Fixed(SegmentationNetwork):
        def __init__(self, *logits):
            super().__init__()
            self.logits = torch.tensor(logits).reshape(1, -1, 1, 1)

        def forward(self, x):
            return self.logits

    mean = EnsembleNetwork([Fixed(0.0, 300.0, -300.0), Fixed(0.0, 300.0, -280.0)])(torch.zeros(1))
    assert torch.isfinite(mean).all()
    expected = torch.tensor([-300.0, 0.0, -580.0 - float(np.log(2))])
    torch.testing.assert_close(mean.flatten(), expected, atol=1e-3, rtol=0)


def test_an_int8_ensemble_averages_in_float32(folds, tmp_path, monkeypatch):
    # Organs of a few voxels
    monkeypatch.setattr("attunet.export.build.parity.TOLERANCES", {"int8": Tolerance(0.05, 0.25, 0.8)})
    export_run(folds, tmp_path / "int8.onnx", precision="int8", outputs=MAPS)
    slices = np.random.default_rng(0).standard_normal((1, 1, 64, 64), dtype=np.float32)
    sums = np.exp(Segmenter(tmp_path / "int8.onnx").logits(slices)).sum(1)
    np.testing.assert_allclose(sums, 1, atol=1e-4)


def test_members_must_fit_together(folds, tmp_path, change_state):
    with pytest.raises(InputError, match="none lies up to 3 levels below it"):
        load_runs(tmp_path)
    other = shutil.copytree(folds, tmp_path / "mixed")
    checkpoint = max((other / "seed-0/fold-1/checkpoints").glob("step-*"))
    state = json.loads((checkpoint / "state.json").read_text())
    change_state(checkpoint, finished=False)
    with pytest.raises(InputError, match="fold-1: is not finished"):
        load_runs(other)
    coarse = json.loads(json.dumps(state["preprocessing"]))
    coarse["spec"]["spacing_mm"] = 9.0
    unfinished = state["preprocessing"] | {"postprocessing": {"largest_component": False, "erosion_mm": 0.0}}
    assert state["preprocessing"]["postprocessing"]["largest_component"]
    for changed in (coarse, unfinished):
        change_state(checkpoint, finished=True, preprocessing=changed)
        with pytest.raises(InputError, match="differ in their preprocessing"):
            load_runs(other)
    change_state(checkpoint, preprocessing=state["preprocessing"])
    both = next(case for case in load_run(folds / "seed-0/fold-0").training_cases if case in state["training_cases"])
    change_state(checkpoint, training_cases=state["training_cases"] | {both: "of another image"})
    with pytest.raises(InputError, match="fold-1 was trained on another image or mask of"):
        load_runs(other)
    for key in ("training_labels", "readings"):
        change_state(checkpoint, training_cases=state["training_cases"], **{key: state[key] | {both: "corrected"}})
        with pytest.raises(InputError, match="fold-1 was trained on another image or mask of"):
            load_runs(other)
        change_state(checkpoint, **{key: state[key]})
    assert Config.from_json(state["config"]).model.name == load_runs(folds).config.model.name


@pytest.fixture(scope="module")
def mixed(small_store, tmp_path_factory):
    """A U-Net with snapshots beside an Attention U-Net, of one fold."""
    folder = tmp_path_factory.mktemp("mixed") / "both"
    for name in ("unet", "attention_unet"):
        optim = "optim.epochs=8 optim.batch_size=8 optim.lr=1e-2"
        settings = f"model.name={name} model.base_width=4 model.depth=2 {optim} run.device=cpu run.snapshots=2"
        config = load_config(None, [*settings.split(), "run.validate_every_epochs=1e6"])
        train(small_store.path, folder / name, config, fold=0)
    return folder


def test_an_fp16_ensemble_averages_in_float32(mixed, tmp_path):
    """Probabilities below float16's range have logarithms, in every implementation of the operators."""
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    export_run(
        mixed / "unet/snapshots",
        tmp_path / "fp16.onnx",
        precision="fp16",
        outputs=MAPS[:3],
    )
    slices = 40 * np.random.default_rng(0).standard_normal((2, 1, 64, 64), dtype=np.float32)
    labels, logits, probabilities = Segmenter(tmp_path / "fp16.onnx").run(("labels", "logits", "probabilities"), slices)
    np.testing.assert_allclose(np.exp(logits).sum(1), 1, atol=1e-4)
    assert np.exp(logits).min() < 6e-8  # the least number of float16
    reference = ReferenceEvaluator(onnx.load(tmp_path / "fp16.onnx")).run(None, {"slices": slices})
    assert (labels == reference[0]).mean() > 0.97
    np.testing.assert_allclose(reference[1], logits, atol=0.1)
    np.testing.assert_allclose(reference[2], probabilities, atol=0.02)


@pytest.mark.parametrize(("path", "outputs"), [(".", MAPS), ("unet/snapshots", MAPS[:3])])
def test_networks_of_two_kinds_and_snapshots_are_exported_and_evaluated(mixed, tmp_path, log_lines, path, outputs):
    folder, out = mixed / path, tmp_path / "model.onnx"
    about = export_run(folder, out, outputs=outputs)
    assert about.num_members == 2
    assert len(about.checkpoint_sha256) == 2
    assert about.dice_at_export["cases"] == "held out"
    assert not any("not finished" in line for line in log_lines)
    slices = np.random.default_rng(0).standard_normal((2, 1, 48, 64), dtype=np.float32)
    pytorch, onnx = (one.model for one in load_models([folder, out]))
    assert pytorch.training_cases == onnx.training_cases
    np.testing.assert_allclose(onnx.logits(slices), pytorch.logits(slices), atol=1e-4)
    assert "mean of 2 networks, the first: name" in card(out)
    assert "with the mean of 2 networks of" in hub_card(out)


def test_the_maps_of_a_mixed_ensemble_are_those_of_its_gates(mixed, tmp_path):
    export_run(mixed, tmp_path / "model.onnx", outputs=MAPS)
    slices = np.random.default_rng(0).standard_normal((1, 1, 32, 32), dtype=np.float32)
    (deepest,) = Segmenter(tmp_path / "model.onnx").run(("attention_0",), slices)
    expected = load_run(mixed / "attention_unet").network.with_attention(torch.from_numpy(slices))[1][0]
    np.testing.assert_allclose(deepest, expected.numpy(), atol=1e-5)
