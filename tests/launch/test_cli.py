"""A wrong call or input is one line with the right exit code, and nothing is written."""

import os
import re
import subprocess
import sys
import zipfile
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from attunet.errors import RunError
from attunet.export.artefact.artefact_file import read_artefact
from attunet.launch.cli import cli
from attunet.launch.exit_codes import run_command
from attunet.launch.options import several
from attunet.store import Store

ROOT = Path(__file__).parents[2]


def test_every_command_has_help(attunet, succeed) -> None:
    top = attunet("--help")
    assert top.code == 0
    for name in ("demo", "phantom", "prepare", "inspect", "train", "crossvalidate", "export", "evaluate", "predict"):
        assert re.search(rf"^  {name} ", top.out, re.MULTILINE)
        succeed(name, "--help")


def test_help_needs_no_heavy_import() -> None:
    code = "import sys; from attunet.launch.cli import main; main(); print('numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("nonsense", "No such command 'nonsense'"),
        ("prepare source", "Missing argument 'STORE'"),
        ("prepare nowhere out", "nowhere: no such folder"),
        ("prepare source out --config nowhere.toml", "presets chaos, chaos-cpu, demo, reference, got 'nowhere.toml'"),
        ("prepare source out --set data.size=100", "data.size: must be a multiple of 16 from 32 to 4096"),
        ("prepare source out --set data.size=[96,8]", "data.size: must be a multiple of 16 from 32 to 4096, got 8"),
        ("prepare source out --set data.sise=96", "has no field 'sise'"),
        ("prepare source out --folds 1", "--folds"),
        (f"prepare source out --seed {2**53}", "Invalid value for '--seed'"),
        ("inspect nowhere", "nowhere: no such file or folder"),
        ("inspect empty", "empty: the folder has no files"),
        ("train empty out --fold 0", "empty: is no store"),
        ("train STORE out", "Missing option '--fold'"),
        ("train STORE out --fold 9", "fold: must be 0 to 2 or all"),
        ("train STORE out --fold -1", "must be the number of a fold or all"),
        (f"train STORE out --fold {'9' * 5000}", "must be the number of a fold or all"),
        (f"crossvalidate STORE out --model unet --folds 0,{'9' * 5000}", "must be numbers of folds separated by"),
        (f"export STORE out.onnx --parity-cases {'9' * 5000}", "must be a whole number from 1 or all"),
        (f"prepare STORE out --classes a={'9' * 5000}", "classes: must be name=value"),
        ("train STORE out --fold 0 --resume --set run.mixed_precision=no", "--resume needs a checkpoint"),
        ("train STORE out --fold 0 --set data.size=96", "[data] is resolved when the store is made"),
        ("train STORE out --fold 0 --set optim.lr=fast", "optim.lr: must be a number"),
        ("train STORE out --fold 0 --init empty --set run.mixed_precision=no", "empty"),
        ("export empty out.onnx", "empty: is not a run"),
        ("export empty out.onnx --size 100 64", "size: height and width must be multiples of 16"),
        ("export empty out.onnx --output heat", "'heat' is not one of"),
        ("evaluate STORE empty --out out", "empty: is not a run"),
        ("evaluate STORE nowhere.onnx --out out", "nowhere.onnx"),
        ("benchmark empty STORE --out out --batch 1,0", "'--batch': 0 is not in the range x>=1"),
        ("benchmark empty STORE --out out --precisions fp32,fp64", "'fp64' is not one of"),
        ("benchmark empty STORE --out out --provider cpu,", "'' is not one of"),
        ("predict nowhere.onnx nowhere.nii.gz out.nii.gz", "nowhere.onnx: no such run or artefact"),
        ("predict --server http://a b c --codes f --tf32", "--tf32, --codes: must be left out with --server"),
        ("predict --server http://a b c --read oblique=a --user me", "--user, --read: must be left out with --server"),
        ("demo --out full", "full: must be a new or an empty folder"),
        ("phantom full", "full: must be a new or an empty folder"),
    ],
)
def test_a_wrong_call_is_one_line_and_leaves_nothing(
    attunet, source: Path, small_store: Store, monkeypatch: pytest.MonkeyPatch, call: str, words: str
) -> None:
    monkeypatch.chdir(source.parent)
    Path("empty").mkdir()
    Path("full").mkdir()
    Path("full/mine.txt").write_text("precious")
    before = {path for path in Path().rglob("*")}
    done = attunet(*(small_store.path if word == "STORE" else word for word in call.split()))
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert words in done.err
    assert {path for path in Path().rglob("*")} == before


def test_values_of_an_option_are_repeated_or_separated_by_commas() -> None:
    @click.command()
    @several("--size", "--sizes", "sizes", each=click.IntRange(1), default=(1, 8), help="Sizes")
    def command(sizes: tuple[int, ...]) -> None:
        click.echo(sizes)

    def sizes_of(*arguments: str) -> str:
        return CliRunner().invoke(command, arguments, catch_exceptions=False).output.strip()

    assert sizes_of() == "(1, 8)"
    assert sizes_of("--size", "2,3", "--sizes", "5") == "(2, 3, 5)"
    assert "Sizes; may be repeated" in sizes_of("--help")


def outcome(raised: BaseException, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    @click.command()
    @click.option("--debug", is_flag=True, expose_value=False)
    def command() -> None:
        raise raised

    code = run_command(command, "command", arguments)
    return code, capsys.readouterr().err


def test_exit_codes_of_failures(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(RunError("loss is not finite at step 3"), capsys) == (1, "error: loss is not finite at step 3\n")
    assert outcome(OSError(28, "No space left on device", "run/file"), capsys) == (
        1,
        "error: run/file: No space left on device\n",
    )
    assert outcome(PermissionError(13, "Permission denied", "out"), capsys) == (1, "error: out: Permission denied\n")
    assert outcome(MemoryError("Unable to allocate 1 GiB"), capsys) == (
        1,
        "error: there is too little memory for this: Unable to allocate 1 GiB\n",
    )
    torch_s = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 34359738368 bytes.")
    assert outcome(torch_s, capsys)[0] == 1
    code, line = outcome(BrokenProcessPool("A process in the process pool was terminated abruptly"), capsys)
    assert (code, line.startswith("error: a worker process was killed")) == (1, True)
    assert outcome(KeyboardInterrupt(), capsys) == (130, "\nerror: interrupted\n")


def test_a_bug_and_debug_keep_their_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError):
        outcome(KeyError("bug"), capsys)
    with pytest.raises(RunError):
        outcome(RunError("shown in full"), capsys, "--debug")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_line(attunet, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = attunet("phantom", tmp_path / "out", "--cases", 1)
    assert (done.code, done.err.count("\n")) == (1, 1)


def test_a_folder_that_is_not_there_is_no_matter_of_temporary_names(attunet, artefact: Path, tmp_path: Path) -> None:
    done = attunet("card", artefact, "-o", tmp_path / "none/card.md")
    assert (done.code, done.err) == (1, f"error: {tmp_path / 'none/card.md'}: No such file or directory\n")


def test_a_closed_pipe_is_no_traceback(source: Path) -> None:
    command = f"{sys.executable} -m attunet.launch.cli inspect {source} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr


def test_presets_and_settings_reach_the_store(attunet, succeed, source: Path, tmp_path: Path) -> None:
    succeed("prepare", source, tmp_path / "store", "--config", "demo", "--set", "data.size=64", "--folds", 2)
    told = attunet("inspect", tmp_path / "store").out
    assert "64 × 64 pixels at" in told
    assert "fold 1" in told
    assert "fold 2" not in told


def test_inspect_says_what_is_there_and_what_is_wrong(attunet, source: Path, run: Path, artefact: Path) -> None:
    (source / "04-T2SPIR-mask.nii.gz").unlink()
    (source / "03-T2SPIR-src.nii.gz").write_bytes((source / "03-T2SPIR-src.nii.gz").read_bytes()[:500])
    told = attunet("inspect", source)
    assert told.code == 2
    assert "4 cases of 4 patients" in told.out
    assert "1 liver, 2 right kidney, 3 left kidney, 4 spleen" in told.out
    assert re.search(r"^error: .*03-T2SPIR-src.nii.gz", told.out, re.MULTILINE)
    assert "warning: 04-T2SPIR: has no mask" in told.out
    assert "finished" in attunet("inspect", run).out
    assert "attention_1" in attunet("inspect", artefact).out
    assert "48 × 40 × 6 voxels" in attunet("inspect", source / "01-T2SPIR-src.nii.gz").out


def test_outputs_size_and_post_processing_are_chosen_at_export(attunet, succeed, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "fixed.onnx"
    chosen = ("--output=logits", "--output=probabilities", "--size", 64, 80, "--largest-component", "--license=CC0")
    succeed("export", run, out, *chosen)
    about = read_artefact(out)
    assert about.outputs == ("logits", "probabilities")
    assert (about.height, about.width, about.postprocessing.largest_component) == (64, 80, True)
    told = attunet("inspect", out).out
    for words in ("height 64, width 80", "logits, probabilities", "largest component", "CC0"):
        assert words in told
    refused = attunet("export", run, tmp_path / "none.onnx", "--output", "labels")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "must include logits" in refused.err


def test_help_of_the_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"attunet {name}" in text for name in cli.commands)


def test_inspect_looks_into_an_archive(attunet, succeed, small_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "scans.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(small_store.source_root.iterdir()):
            archive.write(file, f"a folder/{file.name}")
    done = succeed("inspect", path)
    assert f"{path}: a source, layout src-mask" in done.out
    assert "01-T2SPIR: 48 × 40 × 6 voxels" in done.out
    path.write_bytes(path.read_bytes()[:3000])
    done = attunet("inspect", path)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "scans.zip: cannot be read as an archive" in done.err


def test_inspect_draws_what_a_training_would_see(succeed, small_store: Store, tmp_path: Path) -> None:
    pictures = [tmp_path / "default.png", tmp_path / "none.png"]
    succeed("inspect", small_store.path, "--augmented", pictures[0])
    succeed("inspect", small_store.path, "--augmented", pictures[1], "--set", "augment.enabled=false")
    drawn, plain = (path.read_bytes() for path in pictures)
    assert drawn.startswith(b"\x89PNG")
    assert drawn != plain


def test_no_option_takes_a_number_that_is_none(attunet) -> None:
    numbers = [
        (name, option.opts[0])
        for name, command in cli.commands.items()
        for option in command.params
        if isinstance(option.type, click.types.FloatParamType)
    ]
    assert ("serve", "--timeout") in numbers
    for name, option in numbers:
        for value in ("nan", "inf", "-inf", "1e400"):
            done = attunet(name, f"{option}={value}")
            assert (done.code, done.err.count("\n")) == (2, 1), (name, option, value)
            assert f"Invalid value for '{option}'" in done.err, done.err


def test_the_current_folder_may_be_an_output(
    attunet, succeed, small_store: Store, artefact: Path, tmp_path: Path, monkeypatch
) -> None:
    scans = tmp_path / "scans"
    for command in (
        ("predict", artefact, scans, "."),
        ("evaluate", small_store.path, artefact, "--out", ".", "--latency-seconds", "0.05"),
    ):
        out = tmp_path / command[0]
        for folder in (scans, out):
            folder.mkdir(exist_ok=True)
        (scans / "a.nii.gz").write_bytes((small_store.source_root / "01-T2SPIR-src.nii.gz").read_bytes())
        monkeypatch.chdir(out)
        succeed(*command)
        assert {"predict": "a.nii.gz", "evaluate": "results.json"}[command[0]] in os.listdir()
    (tmp_path / "link").symlink_to("nothing")
    assert "is a link to nothing" in attunet("prepare", scans, tmp_path / "link").err
    for command in (("phantom", "."), ("prepare", scans, "."), ("export", artefact, "."), ("demo", "--out", ".")):
        done = attunet(*command)
        assert (done.code, done.err.count("\n")) == (2, 1), command


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["--version", "inspect"])
def test_an_output_that_cannot_be_written_is_named(artefact, unbuffered, command):
    call = [sys.executable, "-m", "attunet.launch.cli", command, *([artefact] if command == "inspect" else [])]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            list(map(str, call)),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "error: standard output: No space left on device\n")


def test_the_environment_does_not_control_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def fails() -> None:
        raise RunError("no")

    monkeypatch.setenv("RANK", "\x1b[31m" + "9" * 5000)
    assert run_command(fails, "attunet", []) == 1
    assert capsys.readouterr().err == "error: rank ?[31m9999: no\n"
