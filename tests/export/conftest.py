"""A small network as a graph and as an artefact, made once for the tests of the room."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attunet.classes import CHAOS_MR
from attunet.confidence.calibration import CalibrationCounts
from attunet.confidence.estimator import Estimator, LearnedCase, learn
from attunet.confidence.features import CaseFeatures, OrganFeatures
from attunet.export.artefact.artefact import Artefact
from attunet.export.artefact.artefact_file import write_artefact
from attunet.volumes.spec import Preprocessing, PreprocessSpec

SaveArtefact = Callable[..., Path]

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {extras}:
            raise ModuleNotFoundError(f"{{name}} is not installed", name=name)

sys.meta_path.insert(0, Blocker())
{script}
assert not {extras} & set(sys.modules), {extras} & set(sys.modules)
"""
OUTPUTS = ("labels", "logits", "probabilities", "attention_0", "attention_1", "attention_2", "attention_3")


@pytest.fixture(scope="session")
def network():
    """A width-4 attention U-Net with batch-norm statistics of its own, as a training leaves it."""
    torch = pytest.importorskip("torch")
    from attunet.config import ModelConfig
    from attunet.models import build_model

    torch.manual_seed(0)
    network = build_model(ModelConfig(name="attention_unet", base_width=4), 1, 5)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    slices = torch.randn(4, 1, 64, 64)
    with torch.no_grad():
        network(slices)
        network.eval()
        network.head.bias -= network(slices).mean(dim=(0, 2, 3))  # every class is predicted somewhere
    return network


@pytest.fixture(scope="session")
def graph(network) -> bytes:
    """Its serialised graph with every output there is."""
    from attunet.export.build.graph import export_graph

    return export_graph(network, 1, OUTPUTS).SerializeToString()


@pytest.fixture(scope="session")
def logits_graph(graph: bytes) -> bytes:
    """The graph with nothing but logits."""
    import onnx

    model = onnx.load_from_string(graph)
    return onnx.utils.Extractor(model).extract_model(["slices"], ["logits"]).SerializeToString()


@pytest.fixture(scope="session")
def metadata() -> Artefact:
    spec = PreprocessSpec(orientation="LPS", slice_axis=2, spacing_mm=1.6, size=(64, 64))
    return Artefact(
        name="small",
        precision="fp32",
        preprocessing=Preprocessing(spec),
        classes=CHAOS_MR,
        num_parameters=7,
        outputs=OUTPUTS,
        fold=0,
    )


@pytest.fixture(scope="session")
def save_artefact(tmp_path_factory, graph, metadata) -> SaveArtefact:
    """`save_artefact("a.onnx", precision="fp16")` is the small artefact with other metadata, or of another graph."""

    def save(name: str = "model.onnx", content: bytes = graph, /, **changes: object) -> Path:
        path = tmp_path_factory.mktemp("artefact") / name
        path.write_bytes(write_artefact(content, replace(metadata, **changes)))
        return path

    return save


@pytest.fixture(scope="session")
def artefact(save_artefact: SaveArtefact) -> Path:
    return save_artefact("small.onnx")


@pytest.fixture(scope="session")
def whole(logits_graph: bytes, metadata: Artefact, save_artefact: SaveArtefact) -> Path:
    """The small network as an artefact that takes whole volumes."""
    import onnx

    from attunet.export.build.whole.graph import whole_graph

    model = whole_graph(onnx.load_from_string(logits_graph), metadata.spec, CHAOS_MR)
    return save_artefact("whole.onnx", model.SerializeToString(), whole=True, outputs=("labels",))


@pytest.fixture(scope="session")
def write_scan() -> Callable[..., Path]:
    """`write_scan(path, seed=0)` writes noise that the small artefact takes, as NIfTI."""

    def write(path: Path, shape: tuple[int, int, int] = (40, 48, 4), *, seed: int = 0, spacing: float = 1.6) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        data = np.random.default_rng(seed).normal(300, 60, shape).astype(np.int16)
        nib.save(nib.Nifti1Image(data, np.diag([-spacing, -spacing, 5, 1])), path)
        return path

    return write


@pytest.fixture(scope="session")
def run_without() -> Callable[..., bytes]:
    """`run_without({"torch"}, script, *words)` is the output of a script that cannot import these packages."""

    def run(extras: set[str], script: str, *words: object) -> bytes:
        command = [sys.executable, "-c", BLOCKER.format(extras=extras, script=script), *map(str, words)]
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def run(tmp_path_factory, small_store) -> Path:
    """A short training on the small store with fold 0 left out."""
    pytest.importorskip("torch")
    from attunet.config import AugmentConfig, Config, ModelConfig, OptimConfig, RunConfig
    from attunet.training.loop import train

    config = Config(
        model=ModelConfig(base_width=8, depth=2),
        augment=AugmentConfig(enabled=False),
        optim=OptimConfig(epochs=40.0, batch_size=4, lr=1e-2, ema_decay=0.9),
        run=RunConfig(mixed_precision="no", device="cpu", validate_every_epochs=100.0),
    )
    path = tmp_path_factory.mktemp("runs") / "small-run"
    train(small_store.path, path, config, fold=0)
    return path


@pytest.fixture(scope="session")
def learned_cases() -> Callable[..., list[LearnedCase]]:
    """`learned_cases(patients)` are held-out cases of four organs whose entropy shows their Dice,
    with overconfident probabilities.
    """

    def make(patients: int) -> list[LearnedCase]:
        rng = np.random.default_rng(0)
        cases = []
        for number in range(patients):
            errors = np.exp(rng.uniform(np.log(0.03), np.log(0.4), 4))
            organs = tuple(
                OrganFeatures(
                    size=float(1e6 * np.exp(rng.normal(0, 0.2))),
                    parts=int(rng.integers(1, 5)),
                    largest_part=float(rng.uniform(0.9, 1)),
                    expected_dice=float(1 - error),
                    entropy=float(error),
                    margin=float(1 - error),
                )
                for error in errors
            )
            logits = 2 * rng.standard_normal((500, 5))
            classes = (rng.random((500, 1)) > (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).cumsum(1)).sum(1)
            counts = CalibrationCounts.of((2 * logits).astype(np.float32), classes)
            dice = tuple(float(1 - error * rng.uniform(0.8, 1.2)) for error in errors)
            cases.append(LearnedCase(f"patient-{number}", CaseFeatures(organs, 0.5), dice, (True,) * 4, counts))
        return cases

    return make


@pytest.fixture(scope="session")
def estimator(learned_cases: Callable[..., list[LearnedCase]]) -> Estimator:
    """An estimator of 12 patients."""
    return learn(learned_cases(12))


@pytest.fixture(scope="session")
def sure(save_artefact: SaveArtefact, estimator: Estimator) -> Path:
    """The small artefact with an estimator."""
    return save_artefact("sure.onnx", confidence=estimator)
