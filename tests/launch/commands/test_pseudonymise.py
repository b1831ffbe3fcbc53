"""`--pseudonymise` of every command that has it: names are in the table alone."""

import csv
import gzip
import json
import re
import shutil
import stat
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_trainings import set_options

from attunet.export.artefact.artefact_file import read_artefact

pytest.importorskip("torch")

SMALL = set_options("optim.epochs=1 optim.batch_size=auto")
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
@pytest.mark.usefixtures("no_measuring")
def test_no_command_says_a_name_of_a_pseudonymised_store(succeed, scans: Path, tmp_path: Path) -> None:
    out, key = tmp_path / "out", tmp_path / "key.csv"
    out.mkdir()
    models = (out / "store", out / "run", out / "model.onnx")
    commands = [
        ["prepare", scans, out / "store", "--folds", "2", "--pseudonymise", key],
        ["inspect", out / "store"],
        ["train", out / "store", out / "run", "--fold", "0", *SMALL],
        ["export", out / "run", out / "model.onnx", "--source", scans],
        ["evaluate", *models, "--out", out / "results", "--fold=0", "--latency-seconds=0.05", "--source", scans],
        ["report", out / "results"],
        ["predict", out / "model.onnx", scans, out / "labels", "--pseudonymise", key, "--audit", out / "log.jsonl"],
    ]
    for command in commands:
        done = succeed(*command)
        printed = (done.out + done.err).replace(str(scans), "SOURCE")
        assert not [part for part in PARTS if part in printed], (command[0], printed)
    assert names_in(out) == []
    numbers = table(key)
    assert set(numbers) == set(NAMES)
    maps = {path.name for path in (out / "labels").glob("*.nii.gz")}
    assert maps == {f"{number}.nii.gz" for number in numbers.values()}


@pytest.mark.slow
def test_a_folder_of_label_maps_has_the_numbers_of_one_table(attunet, succeed, scans, tmp_path, artefact) -> None:
    """In another table the same number is another patient, whose label map would count as finished."""
    predict, out, key = ["predict", artefact, scans, tmp_path / "out"], tmp_path / "out", tmp_path / "key.csv"
    succeed(*predict, "--pseudonymise", key)
    assert "4 finished before" in succeed(*predict, "--pseudonymise", key).out
    done = attunet(*predict, "--pseudonymise", tmp_path / "other.csv")
    assert (done.code, done.err.count("\n"), "another table" in done.err) == (2, 1, True)
    (tmp_path / "new").mkdir()
    shutil.copy(next(scans.glob("*-src*")), tmp_path / "new" / "NEWCOMER-src.nii.gz")  # whose number is free there
    for table_of in (["--pseudonymise", tmp_path / "other.csv"], []):
        done = attunet("predict", artefact, tmp_path / "new", out, *table_of)
        assert (done.code, "is called by another table" in done.err) == (2, True)
    mark = (out / ".pseudonyms").read_text()
    (out / ".pseudonyms").write_bytes(b"\xff\xfe")
    done = attunet(*predict, "--pseudonymise", key)
    assert (done.code, ".pseudonyms: must be the id" in done.err) == (2, True)
    (out / ".pseudonyms").write_text(mark)
    for path in out.glob("*.nii.gz"):
        path.unlink()
    succeed(*predict, "--pseudonymise", tmp_path / "other.csv")  # nothing of the first is left
    named = tmp_path / "named"
    succeed(*predict[:3], named)
    for number, path in enumerate(sorted(named.glob("*.nii.gz")), 1):
        path.rename(named / f"{number:04d}.nii.gz")  # as of scans that are called by numbers
    done = attunet(*predict[:3], named, "--pseudonymise", key)
    assert (done.code, "is called by names" in done.err) == (2, True)


def test_what_a_header_says_is_not_quoted(attunet, artefact, tmp_path: Path) -> None:
    """The data file that a header names may be called as the patient is, and be nowhere else."""
    header = "NDims = 3\nDimSize = 8 8 4\nElementType = MET_SHORT\nElementDataFile = Qzwicky.raw\n"
    scans, key = tmp_path / "scans", ["--pseudonymise", tmp_path / "key.csv"]
    for folder in ("images", "labels"):
        (scans / folder).mkdir(parents=True)
        for number in (1, 2):
            (scans / folder / f"{number}.mhd").write_text(header)
    (tmp_path / "out").mkdir()
    one = attunet("predict", artefact, scans / "images" / "1.mhd", tmp_path / "out" / "1.nii.gz", *key)
    both = attunet("predict", artefact, scans / "images", tmp_path / "out", *key)
    store = attunet("prepare", scans, tmp_path / "store", "--folds", "2", *key)
    assert (one.code, both.code, store.code) == (2, 1, 2)
    for done in (one, both, store):
        assert "its files cannot be read" in done.out + done.err
        assert "Qzwicky" not in done.out + done.err


def test_a_table_behind_a_link_is_the_file_that_it_leads_to(attunet, succeed, scans: Path, tmp_path: Path) -> None:
    (tmp_path / "safe").mkdir()
    link, key = tmp_path / "link.csv", tmp_path / "safe" / "key.csv"
    link.symlink_to(key)
    succeed("prepare", scans, tmp_path / "store", "--folds", "2", "--pseudonymise", link)
    assert link.is_symlink()
    assert set(table(key)) == set(NAMES)
    link.unlink()
    link.symlink_to(tmp_path / "out" / "key.csv")
    done = attunet("prepare", scans, tmp_path / "out", "--folds", "2", "--pseudonymise", link)
    assert (done.code, "must lie outside" in done.err) == (2, True)


@pytest.mark.slow
@pytest.mark.usefixtures("no_measuring")
def test_what_is_made_of_a_run_of_names_has_numbers(succeed, scans: Path, tmp_path: Path) -> None:
    """Evaluations and benchmarks of a run, and of an artefact, that name the cases of their training."""
    out, key, store, run = tmp_path / "out", tmp_path / "key.csv", tmp_path / "store", tmp_path / "run"
    succeed("prepare", scans, store, "--folds", "2")
    succeed("train", store, run, "--fold", "0", *SMALL)
    succeed("export", run, tmp_path / "named.onnx")
    assert names_in(run)
    evaluation = ["evaluate", store, run, tmp_path / "named.onnx", "--latency-seconds", "0.05"]
    silent(succeed, *evaluation, "--out", out, "--pseudonymise", key)
    silent(succeed, "report", out)
    assert names_in(out) == []
    succeed(*evaluation, "--out", tmp_path / "named")
    files = (folder / "results.json" for folder in (out, tmp_path / "named"))
    ours, theirs = (json.loads(file.read_text())["models"][0]["dice"]["per_case"] for file in files)
    assert {table(key)[name]: dice for name, dice in theirs.items()} == ours
    assert list(ours) == sorted(ours)  # the order of the names would tell something

    artefacts = out / "benchmark" / "artefacts"  # of an earlier call, with names
    artefacts.mkdir(parents=True)
    shutil.copy(tmp_path / "named.onnx", artefacts / "fp32.onnx")
    assert names_in(artefacts)
    some = ["--provider", "cpu", "--precision", "fp32", "--latency-seconds", "0.05"]
    silent(succeed, "benchmark", run, store, "--out", out / "benchmark", *some, "--pseudonymise", key)
    assert names_in(out) == []
    assert {path.name for path in artefacts.iterdir()} == {"fp32.onnx", "fp32-whole.onnx"}


@pytest.mark.slow
@pytest.mark.usefixtures("no_measuring")
def test_commands_on_a_named_store_write_numbers(attunet, succeed, scans: Path, tmp_path: Path) -> None:
    """A cross-validation, whose trainings are processes of their own, with what is made of its runs: artefact with
    confidence, report.
    """
    out, key, store = tmp_path / "out", tmp_path / "key.csv", tmp_path / "store"
    succeed("prepare", scans, store, "--folds", "2")
    assert names_in(store)
    runs = out / "crossvalidation"
    numbered = ["--pseudonymise", key]
    silent(succeed, "crossvalidate", store, runs, "--model", "unet", *SMALL, *numbered)
    silent(succeed, "crossvalidate", store, runs, "--model", "unet", *SMALL, *numbered)  # finished runs are taken
    ensemble = runs / "default" / "unet"
    silent(succeed, "export", ensemble, out / "model.onnx", *numbered, "--confidence", runs)
    silent(succeed, "report", runs)
    silent(succeed, "inspect", ensemble / "seed-0" / "fold-1")
    silent(succeed, "inspect", out / "model.onnx")
    assert names_in(out) == []
    numbers = {number for name, number in table(key).items() if name in NAMES}
    folds = json.loads((runs / "results.json").read_text())["store"]["folds"]
    assert {case for cases in folds.values() for case in cases} == numbers
    done = attunet("crossvalidate", store, runs, "--model", "unet", *SMALL)
    assert done.code == 2
    assert "is called by another table, not by names" in done.err


@pytest.mark.slow
@pytest.mark.usefixtures("no_measuring")
def test_no_name_is_printed_where_it_is_short_or_that_of_a_folder(succeed, scans, tmp_path: Path) -> None:
    """Such names are not looked for in lines: commands must know the cases by their numbers."""
    names = ("Qz", "4711", "SMITHERS-Janeq", "0001")
    for path, name in zip(sorted(scans.glob("*-src.nii.gz")), names, strict=True):
        (tmp_path / "kits" / name).mkdir(parents=True)
        path.rename(tmp_path / "kits" / name / "imaging.nii.gz")
        mask = path.with_name(path.name.replace("-src", "-mask"))
        mask.rename(tmp_path / "kits" / name / "segmentation.nii.gz")
    key, out, store, run = tmp_path / "key.csv", tmp_path / "out", tmp_path / "store", tmp_path / "run"
    pattern = "^(Qz|4711|SMITHERS-Janeq|0001)"
    succeed("prepare", tmp_path / "kits", store, "--folds", "2", "--case-pattern", pattern)
    succeed("train", store, run, "--fold", "all", *SMALL)
    key.write_text("name,number\n4711,0012\nQz,0011\n0001,0002\n")  # a name is a number, and of another case
    done = succeed("export", run, out / "m.onnx", "--pseudonymise", key)
    assert set(re.findall(r"/4 (\S+): checkpoint", done.out)) == {"0002", "0011", "0012", "0013"}
    assert not [name for name in ("Qz", "SMITHERS") if name in done.out + done.err], done.out
    assert set(read_artefact(out / "m.onnx").training_cases) == {"0002", "0011", "0012", "0013"}
    succeed("evaluate", store, out / "m.onnx", "--out", out / "ev", "--latency-seconds=0.05", "--pseudonymise", key)
    succeed("report", out / "ev")
    for file in ("details.json", "results.json", "report.html"):
        assert not [name for name in ("Qz|", "SMITHERS") if name in (out / "ev" / file).read_text()], file


def test_a_table_inside_of_what_is_written_is_refused(attunet, tmp_path: Path) -> None:
    for command in (
        ["crossvalidate", tmp_path / "store", tmp_path / "out", "--model", "unet"],
        ["train", tmp_path / "store", tmp_path / "out", "--fold", "0"],
    ):
        done = attunet(*command, "--pseudonymise", tmp_path / "out" / "key.csv")
        assert done.code == 2
        assert "must lie outside" in done.err
        assert not (tmp_path / "out").exists()


def silent(succeed: Callable[..., Any], *command: object) -> None:
    """Call a command, which must end well and print no name."""
    done = succeed(*command)
    assert not [part for part in PARTS if part in done.out + done.err], (command[0], done.out + done.err)


def test_label_maps_of_numbers_are_those_of_names_and_go_on_after_a_stop(
    attunet, succeed, artefact: Path, scans: Path, tmp_path: Path
) -> None:
    import nibabel as nib

    key = tmp_path / "key.csv"
    succeed("predict", artefact, scans, tmp_path / "named")
    succeed("predict", artefact, scans, tmp_path / "out", "--pseudonymise", key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    numbers = table(key)
    for path in (tmp_path / "named").glob("[!.]*"):
        number = numbers[path.name.removesuffix("-src.nii.gz")]
        both = (nib.load(one).get_fdata() for one in (path, tmp_path / "out" / f"{number}.nii.gz"))
        np.testing.assert_array_equal(*both)
    (tmp_path / "out" / "0002.nii.gz").unlink()
    done = attunet("predict", artefact, scans, tmp_path / "out", "--pseudonymise", key)
    assert "1 segmented" in done.out
    assert "3 finished before" in done.out
    assert table(key) == numbers


@pytest.mark.parametrize(
    "call", ["folder", "images alone", "one file", "in folders", "of nnU-Net", "decomposed letters"]
)
def test_a_patient_has_one_number_in_a_store_and_in_predictions(
    succeed, call: str, artefact: Path, tmp_path: Path, write_case: Callable[..., object]
) -> None:
    """Whichever command comes first, the table names the case, and both use its number."""
    scans, key, name = tmp_path / "scans", tmp_path / "key.csv", "Zo\u00eb" if "letters" in call else "SMITHERS"
    others = ("MILLERTON", "BAXTERTON")
    for number, one in enumerate((name, *others)):
        write_case(scans / f"{number}" if call == "in folders" else scans, one, seed=number)
    given = next(scans.rglob(f"{name}-src.nii.gz"))
    if call in ("images alone", "decomposed letters"):
        (tmp_path / "images").mkdir()
        stem = unicodedata.normalize("NFD", name) if "letters" in call else f"{name}-src"
        shutil.copy(given, tmp_path / "images" / f"{stem}.nii.gz")
    if call == "of nnU-Net":
        for part, ending, role in (("imagesTr", "_0000", "src"), ("labelsTr", "", "mask")):
            (tmp_path / "nnunet" / part).mkdir(parents=True)
            for one in (name, *others):
                source = scans / f"{one}-{role}.nii.gz"
                shutil.copy(source, tmp_path / "nnunet" / part / f"{one}{ending}.nii.gz")
        scans = tmp_path / "nnunet"
        given = scans / "imagesTr" / f"{name}_0000.nii.gz"
    what = {"folder": scans, "in folders": scans, "one file": given, "of nnU-Net": given}.get(call, tmp_path / "images")
    out = tmp_path / "out" if what.is_dir() else tmp_path / "out" / "one.nii.gz"
    succeed("predict", artefact, what, out, "--pseudonymise", key)
    before = table(key)
    assert name in before
    succeed("prepare", scans, tmp_path / "store", "--folds", "2", "--pseudonymise", key)
    numbers = table(key)
    assert set(numbers) == {name, *others}
    assert numbers.items() >= before.items()
    if what.is_dir():
        assert {path.name for path in out.glob("*.nii.gz")} == {f"{number}.nii.gz" for number in before.values()}


def test_two_files_of_one_name_keep_their_own_numbers(
    succeed, artefact: Path, tmp_path: Path, write_case: Callable[..., object]
) -> None:
    image, mask = write_case(tmp_path / "scans", "SMITHERS", seed=1)
    mask.unlink()
    shutil.copy(image, tmp_path / "scans" / "SMITHERS.nii.gz")
    succeed("predict", artefact, tmp_path / "scans", tmp_path / "out", "--pseudonymise", tmp_path / "key.csv")
    assert set(table(tmp_path / "key.csv")) == {"SMITHERS-src", "SMITHERS"}
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 2


def test_no_line_says_a_name_of_the_output(succeed, artefact: Path, scans: Path, tmp_path: Path) -> None:
    scan = next(scans.glob("BAXTER*-src.nii.gz"))
    name = scan.name.removesuffix(".nii.gz")
    for mask in scans.glob("*-mask*"):
        mask.unlink()
    for what, out in ((scan, tmp_path / scan.name), (scans, tmp_path / name)):
        done = succeed("predict", artefact, what, out, "--pseudonymise", tmp_path / "key.csv")
        printed = (done.out + done.err).replace(str(scans), "SOURCE")
        assert not [part for part in PARTS if part in printed], printed


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
    key = tmp_path / "key.csv"
    key.write_text("name,number\nJane,1\nPaul,1\n")
    for options, words in (
        ([tmp_path / "out" / "key.csv"], "outside"),
        ([key, "--dicom-seg"], "patient's name"),
        ([key], "each once"),
    ):
        done = attunet("predict", artefact, scans, tmp_path / "out", "--pseudonymise", *options)
        assert (done.code, words in done.err) == (2, True)
        assert not (tmp_path / "out").exists()
    key.unlink()
    nowhere = tmp_path / "nowhere"
    for call, words in (
        (("predict", artefact, nowhere), "no such file or folder"),
        (("prepare", scans, "--labelled", nowhere), "cannot be read: No such file or directory"),
    ):
        done = attunet(*call, tmp_path / "out", "--pseudonymise", key)
        assert (done.code, done.err) == (2, f"error: {nowhere}: {words}\n")


def test_what_predict_leaves_out_is_said_without_names(attunet, artefact: Path, scans: Path, tmp_path: Path) -> None:
    (scans / "QUINCEY-Tomq-link.nii.gz").symlink_to("/nowhere/QUINCEY")
    done = attunet("predict", artefact, scans, tmp_path / "out", "--pseudonymise", tmp_path / "key.csv")
    assert (done.code, "warning: " in done.out) == (0, True)
    assert not [part for part in PARTS if part in (done.out + done.err).replace(str(scans), "SOURCE")]
    for path in scans.glob("*-[ms]*.nii.gz"):
        path.unlink()
    done = attunet("predict", artefact, scans, tmp_path / "other", "--pseudonymise", tmp_path / "key.csv")
    assert not [part for part in PARTS if part in (done.out + done.err).replace(str(scans), "SOURCE")]
    assert attunet("predict", artefact, scans, tmp_path / "plain").out.count("QUINCEY-Tomq-link.nii.gz") == 1
