"""Nothing that is written depends on the order of Python's sets, which the hash seed of a process decides."""

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from small_trainings import set_options, start

TIMES = re.compile(r"seconds|minutes|_ms$|_per_s$|memory|environment|time|timestamp")


SEVERAL = """
import json, sys
from attunet.launch.cli import cli
from attunet.launch.exit_codes import run_command
commands = json.loads(sys.argv[1])
if any(arguments[0] == "evaluate" for arguments in commands):  # without a process for the memory of each model
    from attunet.benchmarks.evaluation import evaluate
    evaluate.peak_memory_mb = lambda *_, **__: 1.0
for arguments in commands:
    if run_command(cli, "attunet", arguments):
        sys.exit(f"failed: {arguments}")
"""


def run(folder: Path, seed: int, *commands: list[str]) -> None:
    """Calls commands one after the other in one process with this hash seed."""
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1"}
    job = start([sys.executable, "-c", SEVERAL, json.dumps(commands)], cwd=folder, env=environment)
    output = job.communicate()[0]
    assert job.returncode == 0, output


def written(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder but logs and pages of times and of the machine; times in results are left
    out.
    """
    logs = (".jsonl", ".log", ".png", ".html")
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix not in logs and p.name != "environment.json"]
    return {str(p.relative_to(folder)): hashlib.sha256(without_times(p)).hexdigest() for p in sorted(files)}


def without_times(path: Path) -> bytes:
    """A file's bytes; of figures of an evaluation without those that a clock, or the system's memory, gives."""
    if path.name in ("results.json", "details.json", "held_out.json"):
        return json.dumps(timeless(json.loads(path.read_text()))).encode()
    if path.name == "results.md":
        return re.sub(r"\d+(\.\d+)?|–", "0", path.read_text()).encode()
    return path.read_bytes()


def timeless(value: object) -> object:
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if not TIMES.search(key)}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_two_hash_seeds_write_the_same_bytes(tmp_path: Path, write_case) -> None:
    """Scans shared between patients, so that groups are dealt; then a training, an artefact and a label map."""
    # The same folder for both: manifests name it, and hashes of manifests are in artefacts
    results, here, quick = [], tmp_path / "work", set_options("optim.epochs=1")
    for seed in (1, 2):
        for number in range(8):
            write_case(here / "source", f"{number:02d}-T2", seed=number // 2 if number < 6 else number)
        run(
            here,
            seed,
            ["prepare", "source", "store", "--folds", "3", "--set", "data.size=32"],
            ["train", "store", "run", "--fold", "0", *quick],
            ["export", "run", "model.onnx"],
            ["predict", "model.onnx", "source/07-T2-src.nii.gz", "out.nii.gz"],
            ["evaluate", "store", "run", "model.onnx", "--out", "results", "--latency-seconds", "0.01"],
            ["crossvalidate", "store", "cv", "--model", "unet", "--folds", "0,1", *quick],
        )
        if seed == 1:  # the pages of other results differ in their times
            for other in (1, 2):
                run(here, other, ["report", "results", "--cases", "all", "-o", f"../{other}.html"])
            assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()
        folds = json.loads((here / "store/splits.json").read_text())["folds"]
        assert any(len(fold) > 2 for fold in folds), "patients that share scans must be dealt together"
        results.append(written(here))
        shutil.rmtree(here)
    assert results[0] == results[1]
