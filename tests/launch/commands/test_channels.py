"""A model of several channels gets them in the order of its training, whatever order the files have."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_trainings import set_options

from attunet.benchmarks.crossvalidation.held_out import check_belongs
from attunet.benchmarks.crossvalidation.plan import PlannedRun
from attunet.errors import InputError
from attunet.export.artefact.artefact_file import read_artefact
from attunet.export.load_model import load_model
from attunet.export.serve import Client
from attunet.launch.cli import cli
from attunet.launch.exit_codes import run_command
from attunet.runs.load_run import load_run
from attunet.store import open_store

CASES = ("case1", "case2", "case3")


def call(*arguments: object) -> None:
    assert run_command(cli, "attunet", list(map(str, arguments))) == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, write_case) -> Path:
    """Cases of t1 and t2, stores of both orders, and the run and the artefact of t2, t1."""
    folder = tmp_path_factory.mktemp("two")
    for seed, case in enumerate(CASES):
        image, mask = write_case(folder / "made", case, seed=seed)
        own = folder / "source" / case
        own.mkdir(parents=True)
        shutil.copy(mask, own / "seg.nii.gz")
        shutil.copy(image, own / "t1.nii.gz")
        loaded = nib.load(image)
        mirrored = np.asarray(loaded.dataobj)[::-1].copy()  # the same intensities: no range tells the two apart
        nib.save(nib.Nifti1Image(mirrored, loaded.affine, loaded.header), own / "t2.nii.gz")
    call("prepare", folder / "source", folder / "store", "--images", "t2,t1", "--folds", 3)
    call("prepare", folder / "source", folder / "other", "--folds", 3)
    call("train", folder / "store", folder / "runs/a", "--fold=0", *set_options("optim.epochs=6"))
    call("export", folder / "runs/a", folder / "m.onnx")
    return folder


def test_run_and_artefact_know_the_names(place: Path, succeed) -> None:
    assert read_artefact(place / "m.onnx").to_json()["channel_names"] == ["t2", "t1"]
    assert load_model(place / "m.onnx").channels == load_model(place / "runs/a").channels == ("t2", "t1")
    for path in ("m.onnx", "runs/a", "store"):
        assert "t2, t1" in succeed("inspect", place / path).out


@pytest.mark.parametrize("model", ["m.onnx", "runs/a"])
@pytest.mark.parametrize("masks", [True, False], ids=["with masks", "without masks"])
def test_predict_gives_the_channels_in_the_order_of_the_training(
    place: Path, succeed, tmp_path: Path, model: str, masks: bool
) -> None:
    scans = shutil.copytree(place / "source", tmp_path / "scans", ignore=None if masks else lambda *_: ["seg.nii.gz"])
    succeed("predict", place / model, scans, tmp_path / "out")
    store, loaded = open_store(place / "store"), load_model(place / model)
    for case in CASES:
        volume, _ = store.read_source(case)
        expected = loaded.predict_prepared(loaded.prepare(volume))
        made = np.asarray(nib.load(tmp_path / "out" / f"{case}.nii.gz").dataobj)
        np.testing.assert_array_equal(made, np.array(loaded.classes.values)[expected])
    volume, _ = open_store(place / "other").read_source("case1")
    assert (loaded.predict_prepared(loaded.prepare(volume)) != made.astype(int)).any()  # the order matters


def test_no_channel_is_overwritten(place: Path, attunet, tmp_path: Path) -> None:
    for number, channel in enumerate(("t2", "t1")):
        shutil.copy(place / f"source/case1/{channel}.nii.gz", tmp_path / f"x_000{number}.nii.gz")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path in before:
        done = attunet("predict", place / "m.onnx", tmp_path / "x_0000.nii.gz", path)
        assert (done.code, f"{path}: would overwrite the input" in done.err) == (2, True)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


COMMANDS = {
    "evaluate": "evaluate {0}/other {0}/m.onnx {0}/runs/a --out {0}/scores",
    "export": "export {0}/runs/a {0}/new.onnx --store {0}/other",
    "resume": " ".join(["train {0}/other {0}/runs/a --fold=0 --resume", *set_options("optim.epochs=6")]),
    "benchmark": "benchmark {0}/m.onnx {0}/other --out {0}/speed",
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_store_of_another_order_is_refused(place: Path, attunet, command: str) -> None:
    done = attunet(*command.format(place).split())
    assert done.code == 2, done.out
    assert "channels" in done.err.splitlines()[-1]
    assert not (place / "new.onnx").exists()


def test_a_run_of_another_order_is_not_of_a_stores_cross_validation(place: Path) -> None:
    run = load_run(place / "runs/a")
    planned = PlannedRun("default", "attention_unet", 0, 0, run.path, run.config, ())
    check_belongs(run, open_store(place / "store"), planned)
    with pytest.raises(InputError, match=r"runs/a: needs the channels t2, t1, and .*other has t1, t2"):
        check_belongs(run, open_store(place / "other"), planned)


def test_members_of_an_ensemble_have_the_same_channels(place: Path, attunet, tmp_path: Path, change_state) -> None:
    for name in ("a", "b"):
        shutil.copytree(place / "runs/a", tmp_path / "runs" / name)
    checkpoint = load_run(tmp_path / "runs/b").checkpoint
    assert attunet("inspect", tmp_path / "runs").code == 0
    change_state(checkpoint, channels=["t1", "t2"])
    done = attunet("inspect", tmp_path / "runs")
    assert done.code == 2
    assert "differ in their channels" in done.err


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[str]:
    """The address of a server with the artefact."""
    command = [sys.executable, "-m", "attunet.launch.cli", "serve", place / "m.onnx", "--port", "0", "--threads", "1"]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        addresses = (re.search(r"serving at (http://[^\s\"]+)", line) for line in process.stdout)
        yield next(address[1] for address in addresses if address)
        process.terminate()


def test_a_server_gets_the_files_in_the_models_order(place: Path, succeed, served: str, tmp_path: Path) -> None:
    succeed("predict", place / "m.onnx", place / "source", tmp_path / "here")
    succeed("predict", "--server", served, place / "source", tmp_path / "there")
    for case in CASES:
        here, there = (np.asarray(nib.load(tmp_path / side / f"{case}.nii.gz").dataobj) for side in ("here", "there"))
        np.testing.assert_array_equal(here, there)
    with Client(served) as client:
        assert client.model()["channel_names"] == ["t2", "t1"]
        for order in (("t1", "t2"), ("t2", "t1")):
            client.segment([place / f"source/case3/{name}.nii.gz" for name in order], tmp_path / "one.nii.gz")
            np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "one.nii.gz").dataobj), here)
