"""Nothing that is written depends on the order of Python's sets, which the hash seed of a process decides."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from small_trainings import set_options, start


def run(folder: Path, seed: int, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1"}
    job = start([sys.executable, "-m", "attunet.launch.cli", *arguments], cwd=folder, env=environment)
    output = job.communicate()[0]
    assert job.returncode == 0, output


def written(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder but logs of times and of the machine."""
    logs = (".jsonl", ".log", ".png")
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix not in logs and p.name != "environment.json"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}


@pytest.mark.slow
def test_two_hash_seeds_write_the_same_bytes(tmp_path: Path, write_case) -> None:
    """Scans shared between patients, so that groups are dealt; then a training, an artefact and a label map."""
    # The same folder for both: manifests name it, and hashes of manifests are in artefacts
    results, here = [], tmp_path / "work"
    for seed in (1, 2):
        for number in range(8):
            write_case(here / "source", f"{number:02d}-T2", seed=number // 2 if number < 6 else number)
        run(here, seed, "prepare", "source", "store", "--folds", "3", "--set", "data.size=32")
        run(here, seed, "train", "store", "run", "--fold", "0", *set_options("optim.epochs=1"))
        run(here, seed, "export", "run", "model.onnx")
        run(here, seed, "predict", "model.onnx", "source/07-T2-src.nii.gz", "out.nii.gz")
        folds = json.loads((here / "store/splits.json").read_text())["folds"]
        assert any(len(fold) > 2 for fold in folds), "patients that share scans must be dealt together"
        results.append(written(here))
        shutil.rmtree(here)
    assert results[0] == results[1]
