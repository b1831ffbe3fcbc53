"""An error of writing names the file, even where the system does not, as for a limit on the size of files."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from file_limit import file_limit
from small_trainings import set_options

from attunet.export.web.write_page import PAGE
from attunet.launch.cli import cli
from attunet.launch.exit_codes import run_command
from attunet.store import Store

# A limit may cut a compiled file short, which Python would take for a whole one
NO_BYTECODE = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
LOCKED = 60  # bytes: less than a lock has
Arguments = Callable[[Path, Path, Path], Sequence[object]]


@pytest.fixture(scope="module")
def made(small_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, two artefacts and an evaluation."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("made")
    quick = set_options("optim.epochs=1")
    for command in (
        ["train", small_store.path, folder / "run", "--fold", 0, *quick],
        ["export", folder / "run", folder / "model.onnx"],
        ["export", folder / "run", folder / "maps.onnx", "--output", "logits", "--output", "attention"],
        ["evaluate", small_store.path, folder / "model.onnx", "--out", folder / "results", "--latency-seconds", 0.01],
    ):
        code, text = limited(command, None)
        assert code == 0, text
    return folder


def make_key(path: Path) -> None:
    """A private elliptic-curve key."""
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric import ec

    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(*form))


def limited(arguments: Sequence[object], size: int | None) -> tuple[int, str]:
    """Exit code of a command, and what it prints, into memory."""
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.redirect_stderr(text), file_limit(size):
        return run_command(cli, "attunet", [str(argument) for argument in arguments]), text.getvalue()


def quickly(*arguments: object) -> list[object]:
    return [*arguments, "--latency-seconds", 0.01]


TRAINING = set_options("optim.epochs=1")
SCANS = "../source"  # of a store
COMMANDS: dict[str, tuple[Arguments, tuple[int, ...]]] = {  # arguments for store, made and output; limits
    "phantom": (lambda s, m, o: ["phantom", o / "scans", "--cases", 1], (LOCKED, 500)),
    "prepare": (lambda s, m, o: ["prepare", s / SCANS, o / "store"], (LOCKED, 1000, 20_000)),
    "prepare archive": (lambda s, m, o: ["prepare", zipped(s / SCANS, o / "scans"), o / "store"], (LOCKED, 1000)),
    "inspect picture": (lambda s, m, o: ["inspect", s, "--picture", o / "all.png"], (LOCKED,)),
    "inspect augmented": (lambda s, m, o: ["inspect", s, "--augmented", o / "seen.png"], (LOCKED,)),
    "train": (lambda s, m, o: ["train", s, o / "run", "--fold", 0, *TRAINING], (LOCKED, 3000)),
    "crossvalidate": (lambda s, m, o: ["crossvalidate", s, o, "--model", "unet", *TRAINING], (LOCKED,)),
    "export": (lambda s, m, o: ["export", m / "run", o / "model.onnx"], (LOCKED, 3000)),
    "export triton": (lambda s, m, o: ["export", m / "run", o, "--triton", "organs"], (LOCKED, 3000)),
    "evaluate": (lambda s, m, o: quickly("evaluate", s, m / "model.onnx", "--out", o), (LOCKED, 1000)),
    "report": (lambda s, m, o: ["report", m / "results", "-o", o / "report.html"], (LOCKED, 3000)),
    "benchmark": (lambda s, m, o: quickly("benchmark", m / "run", s, "--out", o, *FEW), (LOCKED, 3000)),
    "predict": (lambda s, m, o: ["predict", m / "model.onnx", scan_of(s), o / "one.nii.gz"], (LOCKED,)),
    "predict folder": (lambda s, m, o: ["predict", m / "model.onnx", s / SCANS, o / "labels"], (LOCKED,)),
    "predict audit": (
        lambda s, m, o: ["predict", m / "model.onnx", scan_of(s), o / "one.nii.gz", "--audit", o / "log.jsonl"],
        (300,),
    ),
    "predict attention": (
        lambda s, m, o: ["predict", m / "maps.onnx", scan_of(s), o / "one.nii.gz", "--attention"],
        (LOCKED, 1500),
    ),
    "predict pseudonymise": (
        lambda s, m, o: ["predict", m / "model.onnx", s / SCANS, o / "labels", "--pseudonymise", o / "key.csv"],
        (LOCKED,),
    ),
    "web": (lambda s, m, o: ["web", m / "model.onnx", o / "page"], (LOCKED, 5000)),
    "card": (lambda s, m, o: ["card", m / "model.onnx", "-o", o / "README.md"], (LOCKED,)),
    "sign": (lambda s, m, o: ["sign", o / "model.onnx", "--key", o / "key.pem"], (LOCKED,)),
    "demo": (lambda s, m, o: ["demo", "--out", o, "--cases", 2], (LOCKED, 500)),
}
FEW = ("--provider", "cpu", "--precision", "fp32")


def scan_of(store: Path) -> Path:
    return sorted((store / SCANS).glob("*-src.nii.gz"))[0]


def zipped(folder: Path, archive: Path) -> str:
    return shutil.make_archive(str(archive), "zip", folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "size"), [(command, size) for command, (_, sizes) in COMMANDS.items() for size in sizes]
)
def test_a_command_names_the_file_that_could_not_be_written(
    command: str, size: int, small_store: Store, made: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    if command == "web" and not (PAGE / "index.html").is_file():
        pytest.skip("the page is not built: make web")
    if command == "sign":
        (tmp_path / "model.onnx").write_bytes((made / "model.onnx").read_bytes())
        make_key(tmp_path / "key.pem")
    code, text = limited(COMMANDS[command][0](small_store.path, made, tmp_path), size)
    line = text.splitlines()[-1]
    assert code == 1, text
    assert re.match(r"error: (rank 0: )?/.*File too large", line), text
    assert "system" not in line
    assert not (tmp_path / "store").exists()


def test_prepare_in_a_process_of_its_own_prints_one_line(source: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "attunet.launch.cli", "prepare", source, tmp_path / "store"]
    with file_limit(1000):
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=NO_BYTECODE, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / "store.partial/facts.jsonl") in done.stderr
