"""Ensembles of different networks, and of the snapshots along one training."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_trainings import small_config

from attunet.errors import InputError
from attunet.launch.commands.inspect import describe
from attunet.runs.checkpoint import snapshot_steps
from attunet.runs.ensemble import EnsembleNetwork, ensemble_of, load_runs
from attunet.runs.lineage import Lineage
from attunet.runs.load_run import TrainedRun, load_checkpoint, load_run
from attunet.runs.run_model import open_run
from attunet.sources.case_files import SourceOptions
from attunet.store import Store
from attunet.training.loop import train

SETTINGS = "optim.epochs=8 optim.batch_size=8 run.validate_every_epochs=1e6 optim.lr=1e-2 model.depth=4"


@pytest.fixture(scope="module")
def members(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net with snapshots and an attention U-Net, side by side."""
    folder = tmp_path_factory.mktemp("members")
    for name in ("unet", "attention_unet"):
        config = small_config(SETTINGS, f"model.name={name} run.snapshots=3")
        train(small_store.path, folder / name, config, fold=0)
    return folder


def test_snapshots_are_kept_at_the_end_and_before() -> None:
    assert snapshot_steps(3, 1000) == {800, 900, 1000}
    assert snapshot_steps(0, 1000) == set()
    assert snapshot_steps(4, 1) == {1}


def test_an_ensemble_may_have_members_of_different_networks(members: Path) -> None:
    slices = np.random.default_rng(0).standard_normal((2, 1, 32, 48), dtype=np.float32)
    networks = [load_run(members / name).network for name in ("unet", "attention_unet")]
    with torch.inference_mode():
        first, second = (network(torch.from_numpy(slices)).softmax(1) for network in networks)
        maps = networks[1].with_attention(torch.from_numpy(slices))[1]
    model = open_run(members)
    np.testing.assert_allclose(np.exp(model.logits(slices)), ((first + second) / 2).numpy(), atol=1e-5)
    assert model.name == "attention_unet+unet-ensemble-of-2"
    assert model.num_gates == len(maps) == 4  # only one member has gates
    np.testing.assert_allclose(model.attention(slices)[0], maps[0][:, 0].numpy(), atol=1e-5)


def test_the_snapshots_of_a_run_are_an_ensemble_with_its_held_out_cases(members: Path) -> None:
    run, together = load_run(members / "unet"), load_runs(members / "unet/snapshots")
    assert together.num_members == 3
    assert together.held_out == run.held_out
    assert together.training_cases == run.training_cases
    assert isinstance(together.network, EnsembleNetwork)
    earliest, newest = together.network.members[0].state_dict(), together.network.members[-1].state_dict()
    torch.testing.assert_close(newest, run.network.state_dict(), rtol=0, atol=0)
    assert any(not torch.equal(earliest[name], newest[name]) for name in newest)


def test_a_snapshot_is_the_run_after_that_many_steps(members: Path) -> None:
    folders = sorted((members / "unet/snapshots").glob("step-*"))
    steps = [load_checkpoint(members / "unet", folder).step for folder in folders]
    total = load_run(members / "unet").step
    assert steps == sorted(snapshot_steps(3, total))
    assert len(load_runs(members).checkpoint_sha256) == 2  # snapshots are no members of the folder above


def test_snapshots_of_a_run_that_is_not_finished_are_refused(members: Path, small_store: Store, tmp_path: Path) -> None:
    shutil.copytree(members / "unet", tmp_path / "run")
    shutil.rmtree(max((tmp_path / "run/snapshots").glob("step-*")))
    with pytest.raises(InputError, match="is not finished"):
        load_runs(tmp_path / "run/snapshots")


def test_inspect_names_what_an_ensemble_is_of(members: Path) -> None:
    def first_line(path: Path) -> str:
        return next(iter(describe(path, SourceOptions())))

    assert first_line(members).startswith(f"{members}: an ensemble of 2 runs of attention_unet and unet, ")
    snapshots = first_line(members / "unet/snapshots")
    assert snapshots.startswith(f"{members}/unet/snapshots: an ensemble of 3 snapshots of unet, ")
    assert snapshots.endswith("(finished)")
    classes = ", ".join(f"{index} {name}" for index, name in enumerate(load_run(members / "unet").classes.names))
    assert f"  classes   {classes}" in list(describe(members / "unet", SourceOptions()))


def test_members_of_several_parents_name_none(members: Path) -> None:
    def run_from(sha256: str) -> TrainedRun:
        run = load_run(members / "unet")
        return replace(run, lineage=Lineage("abdomen", sha256, {}, [], "carried", []))

    together = ensemble_of(members, [run_from("1" * 64), run_from("1" * 64)]).lineage
    assert together is not None
    assert together.sha256 == "1" * 64
    assert ensemble_of(members, [run_from("1" * 64), run_from("2" * 64)]).lineage is None


def test_an_ensemble_names_a_store_if_its_members_have_one(members: Path) -> None:
    run = load_run(members / "unet")
    assert ensemble_of(members, [run, run]).store_sha256 == run.store_sha256
    assert ensemble_of(members, [run, replace(run, store_sha256="1" * 64)]).store_sha256 == ""
