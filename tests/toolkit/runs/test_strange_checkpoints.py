"""A stranger's checkpoint whose hashes hold, and which does not fit together: refused in one line."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_trainings import small_config

from attunet.errors import InputError
from attunet.runs.initial_weights import read_initial_weights
from attunet.runs.load_run import load_run
from attunet.store import Store
from attunet.training.loop import train

Tensors = dict[str, torch.Tensor]
CONFIG = small_config("optim.epochs=1")


@pytest.fixture(scope="module")
def trained(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    train(small_store.path, run, CONFIG, fold=0)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def checkpoint(run: Path) -> Path:
    (only,) = (run / "checkpoints").glob("step-*")
    return only


def with_model(**changes: object) -> Callable[[Path], None]:
    """A change of the state's section `[model]`."""

    def change(folder: Path) -> None:
        state = json.loads((folder / "state.json").read_text())
        state["config"]["model"].update(changes)
        (folder / "state.json").write_text(json.dumps(state))

    return change


def with_state(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        state = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps(state | changes))

    return change


def with_tensors(change: Callable[[Tensors], Tensors], part: str = "average") -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / f"{part}.safetensors"
        save_file(change(load_file(path)), path)

    return apply


def cast(dtype: torch.dtype) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()}


def rehash(folder: Path) -> None:
    names = json.loads((folder / "manifest.json").read_text())["sha256"]
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / "manifest.json").write_text(json.dumps({"schema": 1, "sha256": hashes}))


@pytest.mark.parametrize(
    "change",
    [
        with_model(base_width=8),
        with_model(base_width=128, depth=4),  # gigabytes, if it were built
        with_model(depth=3),
        with_model(name="unet"),
        with_tensors(lambda tensors: {}),
        with_tensors(lambda tensors: {**tensors, "another\n": torch.zeros(3)}),
        with_tensors(lambda tensors: {name: tensor.reshape(-1).clone() for name, tensor in tensors.items()}),
        with_tensors(cast(torch.int8)),
        with_tensors(cast(torch.complex64)),
        with_tensors(cast(torch.float64)),
    ],
    ids=["width", "giant", "depth", "model", "empty", "another", "shape", "int8", "complex", "float64"],
)
def test_weights_of_another_network_are_refused(run: Path, change: Callable[[Path], None]) -> None:
    change(checkpoint(run))
    rehash(checkpoint(run))
    with pytest.raises(InputError, match=r"average\.safetensors: must be of the network") as refusal:
        load_run(run)
    assert "\n" not in str(refusal.value)


OPTIMIZER = {
    "empty": lambda tensors: {},
    "another": lambda tensors: {**tensors, "exp_avg/another": torch.zeros(3)},
    "another key": lambda tensors: {**tensors, **{f"x{name}": tensor.clone() for name, tensor in tensors.items()}},
    "shape": lambda tensors: {name: t.reshape(-1)[:2].clone() if t.ndim else t for name, t in tensors.items()},
    "scalars": lambda tensors: {name: torch.zeros(()) for name in tensors},
    "without a moment": lambda tensors: {name: t for name, t in tensors.items() if "exp_avg_sq" not in name},
    "without a parameter": lambda tensors: {name: tensors[name] for name in sorted(tensors)[1:]},
    "int8": lambda tensors: {name: tensor.to(torch.int8) for name, tensor in tensors.items()},
    "complex64": lambda tensors: {name: tensor.to(torch.complex64) for name, tensor in tensors.items()},
}
CONTINUED = [
    *((with_tensors(OPTIMIZER[name], "optimizer"), r"optimizer\.safetensors: must be of the") for name in OPTIMIZER),
    *((with_tensors(OPTIMIZER[name], "model"), r"model\.safetensors: must be of the") for name in ("empty", "another")),
    (with_state(step=0), r"optimizer\.safetensors: must be of the .* must be no such tensor"),
    (with_state(step=2**50), "step: must be at most the training's [0-9]+ steps, got"),
    (with_state(scaler={"scale": "x"}), "scaler: must be an object of numbers or null"),
    (with_state(scaler=[1]), "scaler: must be an object of numbers or null"),
]


@pytest.mark.parametrize(("change", "rule"), CONTINUED, ids=range(len(CONTINUED)))
def test_a_training_of_another_network_is_not_continued(
    small_store: Store, run: Path, change: Callable[[Path], None], rule: str
) -> None:
    folder = checkpoint(run)
    with_state(finished=False, step=1)(folder)
    change(folder)
    rehash(folder)
    with pytest.raises(InputError, match=rule) as refusal:
        train(small_store.path, run, CONFIG, fold=0, resume="require")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("manifest", "rule"),
    [
        ("[" * 200_000, "nested"),
        ('{"sha256": {}}', "must have the SHA-256 of"),
        ('{"sha256": {"../../run.lock": "0", "state.json": "0", "average.safetensors": "0"}}', "of its own folder"),
        ('{"sha256": ["state.json", "average.safetensors"]}', "must be an object of texts"),
        ('{"sha256": {"state.json": [], "average.safetensors": 1}}', "must be an object of texts"),
    ],
    ids=["nested", "empty", "outside", "list", "types"],
)
def test_a_manifest_names_every_file_that_is_read(run: Path, manifest: str, rule: str) -> None:
    (checkpoint(run) / "manifest.json").write_text(manifest)
    for read in (load_run, read_initial_weights):
        with pytest.raises(InputError, match=rule):
            read(run)
