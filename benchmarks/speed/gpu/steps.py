"""The steps of the GPU command in order of worth: tests, operations, training, inference, and a user's cases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attunet.benchmarks.nnunet.trainer import PACKAGE
from attunet.benchmarks.speed.inference import sweep as inference_sweep
from attunet.benchmarks.speed.operations import gate, norm_relu
from attunet.benchmarks.speed.training import comparison_rows
from attunet.benchmarks.speed.training import sweep as training_sweep

TESTS = Path(__file__).resolve().parents[3] / "tests"
PROGRAMS: dict[str, tuple[str, Callable[[Any], str]]] = {  # step: module, formatter of its JSON
    "gate": ("operations.gate", gate.table),
    "norm_relu": ("operations.norm_relu", norm_relu.table),
    "training_sweep": ("training.sweep", training_sweep.table),
    "training_sweep_all": ("training.sweep", training_sweep.table),
    "inference": ("inference.sweep", inference_sweep.table),
    "training": ("training.comparison", comparison_rows.table),
}
NNUNET_S = 120  # more for the comparison of trainings where nnU-Net, which begins slowly, is in it


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
    beside = "--batch-size 16 --steps 20 --warm-up-steps 6 --rounds 1 --limit 120"
    return [
        Step("tests", 150, [*tests, *on_gpu]),
        _program(out, "gate", 80, "--seconds 0.3 --no-network"),
        _program(out, "norm_relu", 60, "--seconds 0.2 --no-compile"),
        _program(out, "training_sweep", 110, profiled),
        _program(out, "inference", 140, "--device cuda --runs 200 --seconds 0.6"),
        _program(out, "training", 90 + _nnunet_s(), beside),
        _program(out, "training_sweep_all", 150, "--minutes 2 --seconds 1.5"),
    ]


def _tiny_steps(out: Path) -> list[Step]:
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "wrong_input"]
    small = "--device cpu --width 4 --size 32 --batch-size 1 --seconds 0.01 --no-compile"
    few = "--device cpu --model unet --widths 4 --batch-sizes 2 --size 32 --seconds 0.1 --profile"
    forms = "--width 4 --size 32 --batch-sizes 1 --runs 3 --threads 1 --only"
    beside = "--width 4 --size 32 --batch-size 2 --steps 1 --warm-up-steps 0 --rounds 1 --workers 0 --limit 120"
    programs = "--only attunet --only plain" + " --only nnunet" * bool(_nnunet_s())
    return [
        Step("tests", 120, [*tests, str(TESTS / "toolkit/ops/test_norm_relu.py")]),
        _program(out, "gate", 120, f"{small} --no-network"),
        _program(out, "norm_relu", 120, small),
        _program(out, "training_sweep", 120, few),
        _program(out, "inference", 120, forms, "PyTorch eager fp32"),
        _program(out, "training", 120 + _nnunet_s(), f"{beside} {programs}"),
    ]


def _nnunet_s() -> float:
    return NNUNET_S if find_spec(PACKAGE) else 0


def _program(out: Path, name: str, limit_s: float, options: str, *more: str) -> Step:
    module, table = PROGRAMS[name]
    program = f"attunet.benchmarks.speed.{module}"
    return Step(name, limit_s, ["-m", program, *options.split(), *more, "--json", str(out / f"{name}.json")], table)


def _data_steps(out: Path, source: Path, *, rehearse: bool) -> list[Step]:
    """Trainings on a user's cases, judged on the cases that they leave out;
    export, evaluation and prediction of the folder.
    """
    store, runs, model = out / "store", out / "crossvalidation", out / "model.onnx"
    if rehearse:
        device, precision, size = "cpu", "fp32", "--folds 2 --set data.size=32"
        recipe = "--model attention_unet --set model.base_width=4 --set optim.epochs=0.2 --folds 0"
    else:
        device, precision, size = "cuda", "fp16", ""
        recipe = "--model attention_unet --model unet --config chaos"
    recipe += f" --set run.device={device}"
    judged = f"--provider {device} --latency-seconds 1"
    return [
        _command("prepare", 60, "prepare", source, store, *size.split()),
        _command("crossvalidation", 400, "crossvalidate", store, runs, *recipe.split()),
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
