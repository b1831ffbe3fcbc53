"""Nothing that is written depends on the order of Python's sets, which the hash seed of a process decides."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from small_trainings import set_options
from watched import Watched

TIMES = re.compile(r"seconds|minutes|_ms$|_per_s$|memory|environment|time|timestamp")
MODELS = ("work/store", "work/run", "work/model.onnx")


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
    watched = Watched(tmp_path)
    del watched.environment["HOME"]
    watched.environment["MPLCONFIGDIR"] = str(tmp_path / "matplotlib")
    for seed in (1, 2):
        watched.environment["PYTHONHASHSEED"] = str(seed)
        # The page of the first results, since pages of others differ in their times
        again = [["report", "1/results", "--cases", "all", "-o", "again.html"]] if results else []
        for number in range(8):
            write_case(here / "source", f"{number:02d}-T2", seed=number // 2 if number < 6 else number)
        watched.attunet(
            ["prepare", "work/source", "work/store", "--folds", 3, "--set", "data.size=32"],
            ["inspect", "work/store", "--picture", "work/store.png"],
            ["train", "work/store", "work/run", "--fold", 0, *quick],
            ["export", "work/run", "work/model.onnx"],
            ["predict", "work/model.onnx", "work/source/07-T2-src.nii.gz", "work/out.nii.gz"],
            ["evaluate", *MODELS, "--out", "work/results", "--latency-seconds", 0.01],
            ["report", "work/results", "--cases", "all", "-o", f"{seed}.html"],
            ["crossvalidate", "work/store", "work/cv", "--model", "unet", "--folds", "0,1", *quick],
            ["phantom", "work/generated", "--cases", 1],
            *again,
            before="import trainings_here; trainings_here.shorten()",
        )
        folds = json.loads((here / "store/splits.json").read_text())["folds"]
        assert any(len(fold) > 2 for fold in folds), "patients that share scans must be dealt together"
        results.append(written(here))
        here.rename(tmp_path / str(seed))
    assert results[0] == results[1]
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "again.html").read_bytes()
    assert watched.seen == []
    assert list(watched.home.iterdir()) == []
