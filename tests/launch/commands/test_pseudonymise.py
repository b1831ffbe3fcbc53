"""`--pseudonymise` of prepare, predict and evaluate: names are in the table alone,
through every command that follows.
"""

import csv
import gzip
import json
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

SMALL = [
    f"--set={setting}"
    for setting in ("model.base_width=4", "model.depth=2", "optim.epochs=1", "run.mixed_precision=no")
]
NAMES = ("SMITHERS-Janeq_77770131", "MILLERTON-Paulq_88880508", "BAXTERTON-Maryq_99991109", "QUINCEY-Tomq_66660911")
PARTS = (*(part for name in NAMES for part in name.replace("_", "-").split("-")), "Hopkins")


@pytest.fixture
def scans(tmp_path: Path, write_case: Callable[..., object]) -> Path:
    for number, name in enumerate(NAMES, 1):
        write_case(tmp_path / "Hopkins", name, seed=number)
    return tmp_path / "Hopkins"


def names_in(folder: Path) -> list[str]:
    """Files below a folder that have part of a name in their path or in their bytes."""
    rows = []
    for path in folder.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        rows += [
            f"{path} has {part}" for part in PARTS if part.encode() in data or part in str(path.relative_to(folder))
        ]
    return rows


def table(key: Path) -> dict[str, str]:
    with key.open(newline="") as file:
        return {row["name"]: row["number"] for row in csv.DictReader(file)}


@pytest.mark.slow
def test_no_command_says_a_name_of_a_pseudonymised_store(attunet, scans: Path, tmp_path: Path) -> None:
    out, key = tmp_path / "out", tmp_path / "key.csv"
    out.mkdir()
    commands = [
        ["prepare", scans, out / "store", "--folds", "2", "--pseudonymise", key],
        ["inspect", out / "store"],
        ["train", out / "store", out / "run", "--fold", "0", *SMALL],
        ["export", out / "run", out / "model.onnx", "--source", scans],
        [
            "evaluate",
            out / "store",
            out / "run",
            out / "model.onnx",
            "--out",
            out / "results",
            "--fold",
            "0",
            "--latency-seconds",
            "0.05",
        ],
        ["report", out / "results"],
        ["predict", out / "model.onnx", scans, out / "labels", "--pseudonymise", key, "--audit", out / "log.jsonl"],
    ]
    commands[4] += ["--source", scans]
    for command in commands:
        done = attunet(*command)
        assert done.code == 0, (command[0], done.err)
        printed = (done.out + done.err).replace(str(scans), "SOURCE")
        assert not [part for part in PARTS if part in printed], (command[0], printed)
    assert names_in(out) == []
    numbers = table(key)
    # A label map has the name of its file, a case that of its pair
    assert set(numbers) == {*NAMES, *(f"{name}-src" for name in NAMES)}
    assert {path.name for path in (out / "labels").iterdir()} == {f"{numbers[f'{name}-src']}.nii.gz" for name in NAMES}


@pytest.mark.slow
def test_an_evaluation_of_named_cases_gives_numbers(attunet, scans: Path, tmp_path: Path) -> None:
    out, key = tmp_path / "out", tmp_path / "key.csv"
    assert attunet("prepare", scans, tmp_path / "store", "--folds", "2").code == 0
    assert attunet("train", tmp_path / "store", tmp_path / "run", "--fold", "0", *SMALL).code == 0
    evaluation = ["evaluate", tmp_path / "store", tmp_path / "run", "--latency-seconds", "0.05"]
    done = attunet(*evaluation, "--out", out, "--pseudonymise", key)
    assert done.code == 0, done.err
    assert not [part for part in PARTS if part in done.out + done.err]
    assert attunet("report", out).code == 0
    assert names_in(out) == []
    assert attunet(*evaluation, "--out", tmp_path / "named").code == 0
    ours, theirs = (
        json.loads((folder / "results.json").read_text())["models"][0]["dice"]["per_case"]
        for folder in (out, tmp_path / "named")
    )
    assert {table(key)[name]: dice for name, dice in theirs.items()} == ours


def test_label_maps_of_numbers_are_those_of_names_and_go_on_after_a_stop(
    attunet, artefact: Path, scans: Path, tmp_path: Path
) -> None:
    import nibabel as nib

    key = tmp_path / "key.csv"
    assert attunet("predict", artefact, scans, tmp_path / "named").code == 0
    assert attunet("predict", artefact, scans, tmp_path / "out", "--pseudonymise", key).code == 0
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    numbers = table(key)
    for path in (tmp_path / "named").iterdir():
        number = numbers[path.name.removesuffix(".nii.gz")]
        both = (nib.load(one).get_fdata() for one in (path, tmp_path / "out" / f"{number}.nii.gz"))
        np.testing.assert_array_equal(*both)
    (tmp_path / "out" / "0002.nii.gz").unlink()
    done = attunet("predict", artefact, scans, tmp_path / "out", "--pseudonymise", key)
    assert "1 segmented" in done.out
    assert "3 finished before" in done.out
    assert table(key) == numbers


def test_a_failed_case_is_called_by_its_number(attunet, artefact: Path, scans: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.csv"
    broken = next(scans.glob("BAXTER*-src.nii.gz"))
    broken.write_bytes(broken.read_bytes()[:-200])
    done = attunet("predict", artefact, scans, tmp_path / "out", "--pseudonymise", key)
    assert done.code == 1
    printed = (done.out + done.err).replace(str(scans), "SOURCE")
    assert not [part for part in PARTS if part in printed], printed
    number = next(number for name, number in table(key).items() if name.startswith("BAXTER"))
    assert f"failed: {number}: " in printed
    done = attunet("predict", artefact, broken, tmp_path / "one.nii.gz", "--pseudonymise", key)
    assert done.code == 2
    assert number in done.err
    assert not [part for part in PARTS if part in done.out + done.err]


def test_refusals(attunet, artefact: Path, scans: Path, tmp_path: Path) -> None:
    done = attunet("predict", artefact, scans, tmp_path / "out", "--pseudonymise", tmp_path / "out" / "key.csv")
    assert done.code == 2
    assert "outside" in done.err
    assert not (tmp_path / "out").exists()
    done = attunet("predict", artefact, scans, tmp_path / "out", "--pseudonymise", tmp_path / "key.csv", "--dicom-seg")
    assert done.code == 2
    assert "patient's name" in done.err
    (tmp_path / "key.csv").write_text("name,number\nJane,1\nPaul,1\n")
    done = attunet("predict", artefact, scans, tmp_path / "out", "--pseudonymise", tmp_path / "key.csv")
    assert done.code == 2
    assert "each once" in done.err
