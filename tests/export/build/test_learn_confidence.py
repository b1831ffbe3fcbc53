"""The estimator of an artefact: which runs it is learned from, what it refuses, and what the graph then gives."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from attunet.confidence.estimator import LearnedCase, learn
from attunet.confidence.features import softmax
from attunet.confidence.fit import NAMES
from attunet.errors import InputError
from attunet.export.artefact.artefact import DISAGREEMENT, Artefact
from attunet.export.artefact.artefact_file import read_artefact
from attunet.export.build.export_run import export_run
from attunet.export.runtime.segmenter import Segmenter
from attunet.store import Store

torch = pytest.importorskip("torch")

from attunet.export.build.graph import export_graph  # noqa: E402
from attunet.models import SegmentationNetwork  # noqa: E402
from attunet.runs.ensemble import EnsembleNetwork  # noqa: E402
from attunet.runs.learned_cases import FILE, Origin, read_learned_cases, write_learned_cases  # noqa: E402
from attunet.runs.load_run import load_run  # noqa: E402

Learned = Callable[..., list[LearnedCase]]


@pytest.fixture(scope="module")
def origin(run: Path, small_store: Store) -> Origin:
    return Origin.of(load_run(run), small_store.preprocessing.postprocessing)


@pytest.fixture
def table(tmp_path: Path, origin: Origin, learned_cases: Learned) -> Path:
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
    assert carried.to_json() == learn([LearnedCase.from_json(_fields(case)) for case in by_fold]).to_json()
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
        ({"classes": ("background", "liver")}, "classes differs"),
        ({"preprocessing": "0" * 64}, "preprocessing differs"),
        ({"model": {"name": "attention_unet"}}, "network differs"),
        ({"postprocessing": "some other"}, "post-processing differs"),
    ],
)
def test_runs_of_another_kind_are_refused(run: Path, table: Path, tmp_path: Path, origin: Origin, change: dict, words: str) -> None:
    for path in table.glob(f"*/*/*/*/{FILE}"):
        _, cases = read_learned_cases(path.parent)
        write_learned_cases(path.parent, dataclasses.replace(origin, **change), cases)
    with pytest.raises(InputError, match=words):
        export_run(run, tmp_path / "model.onnx", confidence=table)
    assert not (tmp_path / "model.onnx").exists()


def test_several_recipes_are_to_be_chosen_from(run: Path, table: Path, tmp_path: Path) -> None:
    shutil.copytree(table / "demo", table / "longer")
    with pytest.raises(InputError, match=r"several recipes for this network; give .*demo/unet or .*longer/unet"):
        export_run(run, tmp_path / "model.onnx", confidence=table)
    assert read_artefact_of(run, tmp_path, table / "longer/unet").confidence is not None


def read_artefact_of(run: Path, folder: Path, table: Path) -> Artefact:
    return export_run(run, folder / "chosen.onnx", confidence=table, parity_cases=1)


def test_a_folder_without_cases_says_how_to_make_them(attunet, run: Path, tmp_path: Path) -> None:
    done = attunet("export", run, tmp_path / "model.onnx", "--confidence", tmp_path / "nothing")
    assert done.code == 2
    assert "attunet crossvalidate STORE" in done.err
    done = attunet("export", run, tmp_path / "model.onnx", "--confidence", tmp_path, "--whole")
    assert (done.code, "without --whole" in done.err) == (2, True)


def test_an_ensemble_of_one_seed_learns_from_single_networks_with_a_warning(
    attunet, run: Path, table: Path, tmp_path: Path, origin: Origin
) -> None:
    for seed in range(2):
        shutil.copytree(run, tmp_path / f"both/{seed}")
    done = attunet("export", tmp_path / "both", tmp_path / "model.onnx", "--confidence", table, "--parity-cases", 1)
    assert done.code == 0, done.err
    assert "warning: confidence of the ensemble is learned on single networks" in done.out
    assert DISAGREEMENT not in read_artefact(tmp_path / "model.onnx").outputs


class Fixed(SegmentationNetwork):
    """The same logits everywhere, plus the slices in the first class."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.num_gates = 0
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def with_attention(self, x):
        rest = torch.zeros_like(x).expand(-1, len(self.logits) - 1, -1, -1)
        return torch.cat([x, rest], dim=1) + self.logits[None, :, None, None], ()


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
    assert "disagreement" in NAMES


@pytest.mark.slow
def test_an_ensemble_of_seeds_learns_from_ensembles_of_each_fold(
    attunet, small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seeds of two folds, with the bound on patients lowered to what a small store has."""
    from attunet.confidence import estimator

    monkeypatch.setattr(estimator, "MIN_PATIENTS", 2)
    monkeypatch.setattr(estimator, "MIN_OF_ORGAN", 2)
    settings = ("model.base_width=4", "model.depth=2", "optim.epochs=6", "run.mixed_precision=no")
    quick = [text for setting in settings for text in ("--set", setting)]
    table = tmp_path / "table"
    done = attunet("crossvalidate", small_store.path, table, "--model", "unet", "--seeds", 2, "--folds", "0,1", *quick)
    assert done.code == 0, done.err
    singles = read_learned_cases(table / "default/unet/seed-0/fold-0")[1]
    assert set(singles) == set(small_store.split(0)[1])
    done = attunet("export", table / "default/unet", tmp_path / "ensemble.onnx", "--confidence", table, "--parity-cases", 1)
    assert done.code == 0, done.err
    assert "confidence: fold-0, 2 networks on" in done.out
    about = read_artefact(tmp_path / "ensemble.onnx")
    assert about.confidence is not None
    assert about.confidence.num_cases == sum(len(small_store.split(fold)[1]) for fold in (0, 1))
    scan = sorted(small_store.path.parent.glob("source/*src*"))[0]
    done = attunet("predict", tmp_path / "ensemble.onnx", scan, tmp_path / "labels.nii.gz", "--confidence")
    assert done.code == 0, done.err
    assert (tmp_path / "labels-confidence.json").exists()
