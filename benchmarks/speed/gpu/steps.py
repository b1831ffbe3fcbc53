"""The steps of the GPU command in order of worth: tests, operations, training, inference, and a user's cases."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from attunet.benchmarks.evaluation.results_table import Json
from attunet.benchmarks.nnunet.trainer import PACKAGE

TESTS = Path(__file__).resolve().parents[3] / "tests/toolkit"
NNUNET_S = 120  # more for the comparison of trainings where nnU-Net, which begins slowly, is in it
SMALL = "--width 4 --size 32"  # of the rehearsal, on the CPU


@dataclass(frozen=True)
class Step:
    name: str  # of its JSON and its heading
    limit_s: float  # seconds after which it is ended
    command: Sequence[str]  # arguments of Python
    table: Callable[[Json], str] | None = None  # of its JSON; None: the last printed lines are its result


def steps_of(out: Path, *, rehearse: bool, source: Path | None) -> list[Step]:
    """The steps in order of worth; a rehearsal has each program once, in miniature."""

    def program(name: str, module: str, limit_s: float, options: str, miniature: str) -> Step:
        words, module = shlex.split(miniature if rehearse else options), f"attunet.benchmarks.speed.{module}"
        command = ["-m", module, *words, "--json", str(out / f"{name}.json")]
        return Step(name, max(limit_s, 120) if rehearse else limit_s, command, import_module(module).table)

    with_nnunet = find_spec(PACKAGE) is not None
    profiled = "--profile --model attention_unet --widths 64 --batch-sizes 16,64 --minutes 1.2 --seconds 2"
    beside = "--batch-size 16 --steps 20 --warm-up-steps 6 --rounds 1 --limit 120"
    on_cpu = f"--device cpu {SMALL} --batch-size 1 --seconds 0.01 --no-compile"
    few = "--profile --model unet --widths 4 --batch-sizes 2 --device cpu --size 32 --seconds 0.1"
    one_form = f"{SMALL} --batch-sizes 1 --runs 3 --threads 1 --only 'PyTorch eager fp32'"
    others = "--only attunet --only plain" + " --only nnunet" * with_nnunet
    short = f"{SMALL} --batch-size 2 --steps 1 --warm-up-steps 0 --rounds 1 --workers 0 --limit 120 {others}"
    steps = [
        _tests(rehearse),
        program("gate", "operations.gate", 80, "--seconds 0.3 --no-network", f"{on_cpu} --no-network"),
        program("norm_relu", "operations.norm_relu", 60, "--seconds 0.2 --no-compile", on_cpu),
        program("training_sweep", "training.sweep", 110, profiled, few),
        program("inference", "inference.sweep", 140, "--device cuda --runs 200 --seconds 0.6", one_form),
        program("training", "training.comparison", 90 + NNUNET_S * with_nnunet, beside, short),
    ]
    if not rehearse:
        steps.append(program("training_sweep_all", "training.sweep", 150, "--minutes 2 --seconds 1.5", ""))
    return steps + (_data_steps(out, source, rehearse=rehearse) if source is not None else [])


def _tests(rehearse: bool) -> Step:
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    if rehearse:
        return Step("tests", 120, [*command, "-k", "wrong_input", str(TESTS / "ops/test_norm_relu.py")])
    parallel = ["-n", "12"] if find_spec("xdist") else []
    on_gpu = [str(TESTS / "ops"), str(TESTS / "training/test_step_graph.py")]
    return Step("tests", 150, [*command, "-m", "gpu", *parallel, *on_gpu])


def _data_steps(out: Path, source: Path, *, rehearse: bool) -> list[Step]:
    """Trainings on a user's cases, judged on the cases that they leave out;
    export, evaluation and prediction of the folder.
    """
    store, runs, model = out / "store", out / "crossvalidation", out / "model.onnx"
    if rehearse:
        device, precision, size, name = "cpu", "fp32", "--folds 2 --set data.size=32", "default"
        recipe = "--model attention_unet --set model.base_width=4 --set optim.epochs=0.2 --folds 0"
    else:
        device, precision, size, name = "cuda", "fp16", "", "chaos"
        recipe = "--model attention_unet --model unet --config chaos"
    recipe += f" --set run.device={device}"
    first_run = runs / name / "attention_unet" / "seed-0" / "fold-0"
    judged = f"--provider {device} --latency-seconds 1"
    return [
        _command("prepare", 60, "prepare", source, store, *size.split()),
        _command("crossvalidation", 400, "crossvalidate", store, runs, *recipe.split()),
        _command("export", 60, "export", first_run, model, "--precision", precision),
        _command("evaluation", 60, "evaluate", store, model, "--out", out / "evaluation", *judged.split()),
        _command("prediction", 60, "predict", model, source, out / "labels", "--provider", device),
    ]


def _command(name: str, limit_s: float, *arguments: object) -> Step:
    return Step(name, limit_s, ["-m", "attunet.launch.cli", *map(str, arguments)])
