"""The steps of the GPU command in order of worth: tests, operations, training, inference, and a user's cases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attunet.benchmarks.speed.inference import sweep as inference_sweep
from attunet.benchmarks.speed.operations import gate, norm_relu
from attunet.benchmarks.speed.training import comparison
from attunet.benchmarks.speed.training import sweep as training_sweep

TESTS = Path(__file__).resolve().parents[3] / "tests"
SPEED = "attunet.benchmarks.speed"


@dataclass(frozen=True)
class Step:
    """One part of the command.

    Args:
        name: of its JSON and its heading.
        limit_s: seconds after which it is ended.
        command: arguments of Python.
        table: formats its JSON; None for a step whose last printed lines are its result.
    """

    name: str
    limit_s: float
    command: Sequence[str]
    table: Callable[[Any], str] | None = None


def steps_of(out: Path, *, rehearse: bool, source: Path | None) -> list[Step]:
    """The steps in order of worth."""
    steps = _tiny_steps(out) if rehearse else _full_steps(out)
    if source is not None:
        steps += _data_steps(out, source, rehearse=rehearse)
    return steps


def _full_steps(out: Path) -> list[Step]:
    tests = f"-m pytest -q -m gpu -p no:cacheprovider {'-n 12' if find_spec('xdist') else ''}".split()
    on_gpu = [str(TESTS / "toolkit/ops"), str(TESTS / "toolkit/training/test_step_graph.py")]
    profiled = "--profile --model attention_unet --widths 64 --batch-sizes 16,64 --minutes 1.2 --seconds 2"
    return [
        Step("tests", 150, [*tests, *on_gpu]),
        _gate(out, 80, "--seconds 0.3 --no-network"),
        _norm_relu(out, 60, "--seconds 0.2 --no-compile"),
        _training_sweep(out, 110, profiled),
        _inference(out, 140, "--device cuda --runs 200 --seconds 0.6"),
        _training(out, 90, "--batch-size 16 --steps 20 --warm-up-steps 6 --rounds 1"),
        _training_sweep(out, 150, "--minutes 2 --seconds 1.5", name="training_sweep_all"),
    ]


def _tiny_steps(out: Path) -> list[Step]:
    small = "--device cpu --width 4 --size 32 --batch-size 1 --seconds 0.01 --no-compile"
    few = "--device cpu --model unet --widths 4 --batch-sizes 2 --size 32 --seconds 0.1 --profile"
    forms = "--width 4 --size 32 --batch-sizes 1 --runs 3 --threads 1 --only"
    beside = "--width 4 --size 32 --batch-size 2 --steps 1 --warm-up-steps 0 --rounds 1 --workers 0"
    tests = [
        *["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "wrong_input"],
        str(TESTS / "toolkit/ops/test_norm_relu.py"),
    ]
    return [
        Step("tests", 120, tests),
        _gate(out, 120, f"{small} --no-network"),
        _norm_relu(out, 120, small),
        _training_sweep(out, 120, few),
        _inference(out, 120, forms, "PyTorch eager fp32"),
        _training(out, 120, f"{beside} --only attunet --only plain"),
    ]


def _gate(out: Path, limit_s: float, options: str) -> Step:
    return _program(out, "gate", "operations.gate", limit_s, gate.table, options)


def _norm_relu(out: Path, limit_s: float, options: str) -> Step:
    return _program(out, "norm_relu", "operations.norm_relu", limit_s, norm_relu.table, options)


def _training_sweep(out: Path, limit_s: float, options: str, *, name: str = "training_sweep") -> Step:
    return _program(out, name, "training.sweep", limit_s, training_sweep.table, options)


def _inference(out: Path, limit_s: float, options: str, *more: str) -> Step:
    return _program(out, "inference", "inference.sweep", limit_s, inference_sweep.table, options, *more)


def _training(out: Path, limit_s: float, options: str) -> Step:
    return _program(out, "training", "training.comparison", limit_s, comparison.table, options)


def _program(
    out: Path, name: str, module: str, limit_s: float, table: Callable[[Any], str], options: str, *more: str
) -> Step:
    command = ["-m", f"{SPEED}.{module}", *options.split(), *more, "--json", str(out / f"{name}.json")]
    return Step(name, limit_s, command, table)


def _data_steps(out: Path, source: Path, *, rehearse: bool) -> list[Step]:
    """Trainings on a user's cases, judged on the cases that they leave out;
    export, evaluation and prediction of the folder.
    """
    store, runs, model = out / "store", out / "crossvalidation", out / "model.onnx"
    device = "cpu" if rehearse else "cuda"
    precision = "fp32" if rehearse else "fp16"
    size = "--folds 2 --set data.size=32" if rehearse else ""
    recipe = (
        "--model attention_unet --set model.base_width=4 --set optim.epochs=0.2 --folds 0"
        if rehearse
        else "--model attention_unet --model unet --config chaos"
    )
    judged = f"--provider {device} --latency-seconds 1"
    return [
        _command("prepare", 60, "prepare", source, store, *size.split()),
        _command(
            "crossvalidation", 400, "crossvalidate", store, runs, *recipe.split(), "--set", f"run.device={device}"
        ),
        Step("export", 60, ["-c", _EXPORT, str(runs), str(model), precision]),
        _command("evaluation", 60, "evaluate", store, model, "--out", out / "evaluation", *judged.split()),
        _command("prediction", 60, "predict", model, source, out / "labels", "--provider", device),
    ]


# The first finished run of a cross-validation as an artefact.
_EXPORT = """
import pathlib, sys
from attunet.export.build.export_run import export_run
folder, out, precision = sys.argv[1:]
run = sorted(path.parent for path in pathlib.Path(folder).rglob("checkpoints"))[0]
print(run, export_run(run, out, precision=precision).dice_at_export)
"""


def _command(name: str, limit_s: float, *arguments: object) -> Step:
    return Step(name, limit_s, ["-m", "attunet.launch.cli", *map(str, arguments)])
