"""The estimator of an artefact: the runs that it is learned from, refusals, and the output of the graph."""

import dataclasses
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attunet.confidence.estimator import LearnedCase, learn
from attunet.confidence.features import FeatureObserver, softmax
from attunet.errors import InputError
from attunet.evaluate_case import ObservedEvaluation
from attunet.export.artefact.artefact_file import read_artefact
from attunet.export.artefact.graph_tensors import DISAGREEMENT
from attunet.export.build.export_run import export_run
from attunet.export.runtime.segmenter import Segmenter
from attunet.store import Store
from attunet.volumes.spec import Postprocessing

torch = pytest.importorskip("torch")

from attunet.export.build.graph import export_graph  # noqa: E402
from attunet.export.build.learn_confidence import learn_confidence  # noqa: E402
from attunet.models import SegmentationNetwork  # noqa: E402
from attunet.runs.ensemble import EnsembleNetwork, ensemble_of  # noqa: E402
from attunet.runs.learned_cases import FILE, ObservedModel, read_learned_cases, write_learned_cases  # noqa: E402
from attunet.runs.load_run import load_run  # noqa: E402

Learned = Callable[..., list[LearnedCase]]


@pytest.fixture(scope="module")
def origin(run: Path, small_store: Store) -> ObservedModel:
    return ObservedModel.of_members(load_run(run), small_store, small_store.preprocessing.postprocessing)[0]


@pytest.fixture
def table(tmp_path: Path, origin: ObservedModel, learned_cases: Learned) -> Path:
    """A cross-validation's folder with the learned cases of two folds."""
    cases = learned_cases(12)
    for fold in range(2):
        run = tmp_path / f"table/demo/unet/seed-0/fold-{fold}"
        run.mkdir(parents=True)
        write_learned_cases(run, origin, {f"case-{i}": case for i, case in enumerate(cases) if i % 2 == fold})
    return tmp_path / "table"


def test_the_artefact_carries_what_the_held_out_cases_teach(
    attunet, run: Path, table: Path, tmp_path: Path, learned_cases: Learned
) -> None:
    out = tmp_path / "model.onnx"
    options = ("--output", "labels", "--output", "logits", "--output", "probabilities")
    done = attunet("export", run, out, "--confidence", table, *options)
    assert done.code == 0, done.err
    assert "learned on 12 held-out predictions of 12 patients" in done.out
    carried = read_artefact(out).confidence
    assert carried is not None
    by_fold = [case for fold in range(2) for i, case in enumerate(learned_cases(12)) if i % 2 == fold]
    assert carried.to_json() == learn([LearnedCase.from_json(_fields(case), 4) for case in by_fold]).to_json()
    assert "patients left out" in attunet("inspect", out).out
    slices = np.random.default_rng(0).standard_normal((2, 1, 32, 48), dtype=np.float32)
    labels, logits, probabilities = Segmenter(out, num_threads=1).run(("labels", "logits", "probabilities"), slices)
    assert carried.temperature > 1.5
    np.testing.assert_allclose(probabilities, softmax(logits, carried.temperature), atol=1e-5)
    assert (labels == logits.argmax(axis=1)).all()


def _fields(case: LearnedCase):
    from attunet.fields import Fields

    return Fields(json.loads(json.dumps(case.to_json())), "file")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": ("background", "a", "b", "c", "d")}, "classes differs"),
        ({"preprocessing": "0" * 64}, "preprocessing differs"),
        ({"model": {"name": "attention_unet"}}, "network differs"),
        ({"postprocessing": "some other"}, "post-processing differs"),
        ({"store": "0" * 64}, "data set differs"),
    ],
)
def test_runs_of_another_kind_are_refused(
    run: Path, table: Path, tmp_path: Path, origin: ObservedModel, change: dict, words: str
) -> None:
    for path in table.glob(f"*/*/*/*/{FILE}"):
        _, cases = read_learned_cases(path.parent)
        write_learned_cases(path.parent, dataclasses.replace(origin, **change), cases)
    with pytest.raises(InputError, match=words):
        export_run(run, tmp_path / "model.onnx", confidence=table)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda case: [values.pop() for values in (case["features"]["organs"], case["dice"], case["had"])],
            "features.organs: must be a list of 4",
        ),
        (lambda case: case["features"]["organs"][0].update(size=0), "size: must be a number of at least 1e-30, got 0"),
    ],
    ids=["organs", "size"],
)
def test_cases_from_which_nothing_can_be_learned_are_refused_by_the_field(
    run: Path, table: Path, small_store: Store, change: Callable[[dict], object], words: str
) -> None:
    file = table / f"demo/unet/seed-0/fold-1/{FILE}"
    content = json.loads(file.read_text())
    change(next(iter(content["cases"].values())))
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=re.escape(str(file)) + f".*{words}"):
        learn_confidence(table, load_run(run), small_store, small_store.preprocessing.postprocessing)


def test_cases_of_a_run_that_was_trained_again_are_refused(
    run: Path, table: Path, small_store: Store, origin: ObservedModel
) -> None:
    fold, finish = table / "demo/unet/seed-0/fold-0", small_store.preprocessing.postprocessing
    shutil.copytree(run, fold, dirs_exist_ok=True)
    assert learn_confidence(table, load_run(run), small_store, finish).num_cases == 12
    write_learned_cases(fold, dataclasses.replace(origin, checkpoint="0" * 64), read_learned_cases(fold)[1])
    with pytest.raises(InputError, match=r"fold-0/.*: is of another checkpoint than this run has now"):
        learn_confidence(table, load_run(run), small_store, finish)


def test_cases_whose_patients_the_store_has_changed_since_are_refused(
    run: Path, table: Path, small_store: Store, tmp_path: Path
) -> None:
    store = shutil.copytree(small_store.path, tmp_path / "store")
    manifest, splits = (json.loads((store / name).read_text()) for name in ("manifest.json", "splits.json"))
    patient = splits["folds"][0][0]
    next(case for case in manifest["cases"] if case["patient"] == patient)["patient"] = "another"
    splits["folds"][0][0] = "another"
    (store / "manifest.json").write_text(json.dumps(manifest))
    (store / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(InputError, match="data set differs"):
        export_run(run, tmp_path / "model.onnx", store=store, confidence=table)


def test_several_recipes_are_to_be_chosen_from(run: Path, table: Path, small_store: Store) -> None:
    shutil.copytree(table / "demo", table / "longer")
    finish = small_store.preprocessing.postprocessing
    with pytest.raises(InputError, match=r"several recipes for this network; give .*demo/unet or .*longer/unet"):
        learn_confidence(table, load_run(run), small_store, finish)
    assert learn_confidence(table / "longer/unet", load_run(run), small_store, finish).num_cases == 12


def test_a_folder_without_cases_says_how_to_make_them(attunet, run: Path, tmp_path: Path) -> None:
    done = attunet("export", run, tmp_path / "model.onnx", "--confidence", tmp_path / "nothing")
    assert done.code == 2
    assert "attunet crossvalidate STORE" in done.err
    done = attunet("export", run, tmp_path / "model.onnx", "--confidence", tmp_path, "--whole")
    assert (done.code, "without --whole" in done.err) == (2, True)


def test_an_ensemble_of_one_seed_learns_from_single_networks_with_a_warning(
    run: Path, table: Path, small_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    single = load_run(run)
    ensemble = ensemble_of(run.parent, [single, single])
    estimator = learn_confidence(table, ensemble, small_store, single.postprocessing)
    assert estimator.num_cases == 12
    assert "confidence of the ensemble is learned on single networks" in caplog.text


class Fixed(SegmentationNetwork):
    """The same logits everywhere, plus the slices in the first class."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.num_gates = 0
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def with_attention(self, x):
        rest = [0 * x] * (len(self.logits) - 1)
        return torch.cat([x, *rest], dim=1) + self.logits[None, :, None, None], ()


def test_disagreement_is_one_between_sure_opposites_and_none_between_equals() -> None:
    x = torch.zeros(1, 1, 16, 16)
    opposite = EnsembleNetwork([Fixed(0.0, 200.0), Fixed(200.0, 0.0)])
    logits, disagreement, _ = opposite.with_disagreement(x)
    assert torch.equal(logits, opposite(x))
    torch.testing.assert_close(disagreement, torch.ones(1, 1, 16, 16))
    same = EnsembleNetwork([Fixed(1.0, 0.0), Fixed(1.0, 0.0)])
    torch.testing.assert_close(same.with_disagreement(x)[1], torch.zeros(1, 1, 16, 16), atol=1e-6, rtol=0)
    p, q = 0.9, 0.5
    mixed = EnsembleNetwork([Fixed(math.log(p), math.log(1 - p)), Fixed(0.0, 0.0)])

    def entropy(v: float) -> float:
        return -(v * math.log(v) + (1 - v) * math.log(1 - v))

    expected = (entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2) / math.log(2)
    assert mixed.with_disagreement(x)[1].detach().numpy()[0, 0, 0, 0] == pytest.approx(expected, abs=1e-6)


def test_the_graph_gives_the_members_disagreement() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = EnsembleNetwork([Fixed(0.3, 1.0, -1.0), Fixed(-1.0, 0.5, 2.0)])
    graph = export_graph(network, 1, ("logits", DISAGREEMENT)).SerializeToString()
    slices = np.random.default_rng(0).standard_normal((3, 1, 16, 32), dtype=np.float32)
    logits, disagreement = onnxruntime.InferenceSession(graph).run(["logits", DISAGREEMENT], {"slices": slices})
    with torch.inference_mode():
        expected, wanted, _ = network.with_disagreement(torch.from_numpy(slices))
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(disagreement, wanted.numpy(), atol=1e-5)


def test_the_runtime_observes_the_disagreement(save_artefact, small_store: Store) -> None:
    network = EnsembleNetwork([Fixed(0.3, 1.0, -1.0, 0.0, 0.0), Fixed(-1.0, 0.5, 2.0, 0.0, 0.0)])
    graph = export_graph(network, 1, ("labels", "logits", DISAGREEMENT)).SerializeToString()
    path = save_artefact("ensemble.onnx", graph, outputs=("labels", "logits", DISAGREEMENT))
    segmenter = Segmenter(path, num_threads=1)
    slices = np.zeros((2, 1, 32, 48), np.float32)
    observed = segmenter.observed(slices)
    assert observed.shape == (2, 6, 32, 48)
    with torch.inference_mode():
        expected = network.with_disagreement(torch.from_numpy(slices))[1].numpy()
    np.testing.assert_allclose(observed[:, 5:], expected, atol=1e-5)
    volume, _ = small_store.read_source(small_store.cases[0].name)
    prepared = segmenter.prepare(volume)
    observer = FeatureObserver(prepared.grid, 5)
    labels = segmenter.predict_prepared(prepared, observers=[observer])
    assert np.array_equal(labels, segmenter.predict_prepared(prepared))
    organs = [organ for organ in observer.features(0.0).organs if organ is not None]
    assert organs
    assert all(organ.disagreement is not None and organ.disagreement > 0 for organ in organs)


def test_an_ensemble_of_seeds_learns_from_ensembles_of_each_fold(
    run: Path, tmp_path: Path, origin: ObservedModel, small_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [tmp_path / f"table/demo/unet/seed-{seed}/fold-0" for seed in range(2)]
    for path in paths:
        shutil.copytree(run, path)
        write_learned_cases(path, origin, {})
    members = [load_run(path) for path in paths]
    ensemble = ensemble_of(tmp_path / "table/demo/unet", members)
    caplog.set_level("INFO")
    estimator = learn_confidence(tmp_path / "table", ensemble, small_store, members[0].postprocessing)
    held_out = small_store.split(0)[1]
    assert f"confidence: fold-0, 2 networks on {len(held_out)} held-out cases" in caplog.text
    assert (estimator.num_cases, estimator.num_patients) == (len(held_out), len(held_out))
    assert "cannot tell" in estimator.describe()


def test_an_ensembles_dice_is_that_after_the_artefacts_post_processing(
    run: Path, tmp_path: Path, small_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store may have been prepared again with another one."""
    own, used, learned = small_store.preprocessing.postprocessing, [], ObservedEvaluation.learned
    other = dataclasses.replace(own, largest_component=not own.largest_component)
    paths = [tmp_path / f"table/demo/unet/seed-{seed}/fold-0" for seed in range(2)]
    for path in paths:
        shutil.copytree(run, path)
        write_learned_cases(path, ObservedModel.of_members(load_run(path), small_store, other)[0], {})

    def note(case: ObservedEvaluation, patient: str, how: Postprocessing) -> LearnedCase:
        used.append(how)
        return learned(case, patient, how)

    monkeypatch.setattr(ObservedEvaluation, "learned", note)
    ensemble = ensemble_of(tmp_path / "table/demo/unet", [load_run(path) for path in paths])
    learn_confidence(tmp_path / "table", ensemble, small_store, other)
    assert used == [other] * len(small_store.split(0)[1])


def test_an_ensemble_of_both_networks_wants_runs_of_both(
    run: Path, table: Path, origin: ObservedModel, small_store: Store
) -> None:
    single = load_run(run)
    other = dataclasses.replace(single.config.model, base_width=12)
    mixed = dataclasses.replace(single, num_members=2, sections=(single.config.model, other))
    finish = small_store.preprocessing.postprocessing
    with pytest.raises(InputError, match="the network differs"):
        learn_confidence(table, mixed, small_store, finish)
    cases = read_learned_cases(table / "demo/unet/seed-0/fold-0")[1]
    wide = table / "demo/wide/seed-0/fold-0"
    wide.mkdir(parents=True)
    write_learned_cases(wide, dataclasses.replace(origin, model=dataclasses.asdict(other)), cases)
    # Fold 1 has one run: all learn from single networks
    assert learn_confidence(table, mixed, small_store, finish).num_cases == 18
