"""Everything worth knowing of a GPU in one command:
`python -m attunet.benchmarks.speed.gpu OUT [--source FOLDER] [--minutes 8]`.

Steps run in order of worth, each in a process of its own with a time limit, so that a step that hangs or fails costs no
other. Each writes its JSON into OUT when it is finished, and OUT/gpu.md is written again after each. It needs torch,
accelerate, onnx, onnxruntime-gpu and their companions (the extra `train`), and `attunet` on the path; no network.
`--rehearse` runs every step in miniature on any machine.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from attunet.benchmarks.evaluation.results_table import aligned
from attunet.benchmarks.speed import gate, inference, norm_relu, training, training_sweep
from attunet.system.atomic_files import write_text
from attunet.system.environment import environment

TESTS = Path(__file__).resolve().parents[2] / "tests"
SPEED = "attunet.benchmarks.speed"
KILL_AFTER_S = 5  # a step that does not end when it is asked to
MAX_TABLE_LINES = 60  # of one step on the page
LINES_PER_STEP, MAX_PRINTED_LINES = 12, 98


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


@dataclass(frozen=True)
class Outcome:
    """Result of a step. state: done, failed, out of time or not begun; text: table or last printed lines."""

    step: Step
    state: str
    seconds: float
    text: str


def steps_of(out: Path, *, rehearse: bool, source: Path | None) -> list[Step]:
    """The steps in order of worth."""
    steps = _tiny_steps(out) if rehearse else _full_steps(out)
    if source is not None:
        steps += _data_steps(out, source, rehearse=rehearse)
    return steps


def _full_steps(out: Path) -> list[Step]:
    workers = ["-n", "12"] if find_spec("xdist") else []
    on_gpu = [str(TESTS / "toolkit/ops"), str(TESTS / "toolkit/training/test_step_graph.py")]
    sweep = [
        "--profile",
        "--model",
        "attention_unet",
        "--widths",
        "64",
        "--batch-sizes",
        "16,64",
        "--minutes",
        "1.2",
        "--seconds",
        "2",
    ]
    timed = ["--runs", "200", "--seconds", "0.6"]
    beside = ["--batch-size", "16", "--steps", "20", "--warm-up-steps", "6", "--rounds", "1"]
    return [
        Step("tests", 150, ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *workers, *on_gpu]),
        _program(out, "gate", 80, gate.table, "--seconds", "0.3", "--no-network"),
        _program(out, "norm_relu", 60, norm_relu.table, "--seconds", "0.2", "--no-compile"),
        _program(out, "training_sweep", 110, training_sweep.table, *sweep),
        _program(out, "inference", 140, inference.table, "--device", "cuda", *timed),
        _program(out, "training", 90, training.table, *beside),
        _program(
            out,
            "training_sweep",
            150,
            training_sweep.table,
            "--minutes",
            "2",
            "--seconds",
            "1.5",
            name="training_sweep_all",
        ),
    ]


def _tiny_steps(out: Path) -> list[Step]:
    small = [
        "--device",
        "cpu",
        "--width",
        "4",
        "--size",
        "32",
        "--batch-size",
        "1",
        "--seconds",
        "0.01",
        "--no-compile",
    ]
    sweep = [
        "--device",
        "cpu",
        "--model",
        "unet",
        "--widths",
        "4",
        "--batch-sizes",
        "2",
        "--size",
        "32",
        "--seconds",
        "0.1",
        "--profile",
    ]
    forms = [
        "--width",
        "4",
        "--size",
        "32",
        "--batch-sizes",
        "1",
        "--runs",
        "3",
        "--threads",
        "1",
        "--only",
        "PyTorch eager fp32",
    ]
    beside = [
        "--width",
        "4",
        "--size",
        "32",
        "--batch-size",
        "2",
        "--steps",
        "1",
        "--warm-up-steps",
        "0",
        "--rounds",
        "1",
    ]
    tests = TESTS / "toolkit/ops/test_norm_relu.py"
    return [
        Step("tests", 120, ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "wrong_input", str(tests)]),
        _program(out, "gate", 120, gate.table, *small, "--no-network"),
        _program(out, "norm_relu", 120, norm_relu.table, *small),
        _program(out, "training_sweep", 120, training_sweep.table, *sweep),
        _program(out, "inference", 120, inference.table, *forms),
        _program(
            out, "training", 120, training.table, *beside, "--workers", "0", "--only", "attunet", "--only", "plain"
        ),
    ]


def _program(
    out: Path, module: str, limit_s: float, table: Callable[[Any], str], *arguments: str, name: str | None = None
) -> Step:
    name = name or module
    return Step(name, limit_s, ["-m", f"{SPEED}.{module}", *arguments, "--json", str(out / f"{name}.json")], table)


def _data_steps(out: Path, source: Path, *, rehearse: bool) -> list[Step]:
    """Trainings on a user's cases, judged on the cases that they leave out;
    export, evaluation and prediction of the folder.
    """
    store, runs, model = out / "store", out / "crossvalidation", out / "model.onnx"
    device, provider = ("cpu", "cpu") if rehearse else ("cuda", "cuda")
    precision = "fp32" if rehearse else "fp16"
    recipe = (
        ["--set", "model.base_width=4", "--set", "optim.epochs=0.2", "--folds", "0"]
        if rehearse
        else ["--config", "chaos"]
    )
    networks = ["--model", "attention_unet"] if rehearse else ["--model", "attention_unet", "--model", "unet"]
    folds = ["--folds", "2"] if rehearse else []
    size = ["--set", "data.size=32"] if rehearse else []
    return [
        _command("prepare", 60, "prepare", source, store, *folds, *size),
        _command(
            "crossvalidation", 400, "crossvalidate", store, runs, *networks, *recipe, "--set", f"run.device={device}"
        ),
        Step("export", 60, ["-c", _EXPORT, str(runs), str(model), precision]),
        _command(
            "evaluation",
            60,
            "evaluate",
            store,
            model,
            "--out",
            out / "evaluation",
            "--provider",
            provider,
            "--latency-seconds",
            "1",
        ),
        _command("prediction", 60, "predict", model, source, out / "labels", "--provider", provider),
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


def run_steps(steps: Sequence[Step], out: Path, minutes: float) -> list[Outcome]:
    """Runs the steps one after the other within `minutes`; the page in `out` is written again after each."""
    began, outcomes = time.monotonic(), []
    for step in steps:
        left = 60 * minutes - (time.monotonic() - began)
        outcomes.append(run_step(step, left))
        print(f"{step.name}: {outcomes[-1].state} after {outcomes[-1].seconds:.0f} s", flush=True)
        write_text(out / "gpu.md", page(outcomes))
    return outcomes


def run_step(step: Step, left_s: float) -> Outcome:
    """Runs a step for at most its own limit and `left_s`."""
    limit = min(step.limit_s, left_s)
    if limit < KILL_AFTER_S:
        return Outcome(step, "not begun", 0.0, "")
    began = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, *step.command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        errors="replace",
    )
    try:
        printed, state = child.communicate(timeout=limit)[0], "done" if child.returncode == 0 else "failed"
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 15)
        try:
            printed = child.communicate(timeout=KILL_AFTER_S)[0]
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)
            printed = child.communicate()[0]
        state = "out of time"
    return Outcome(step, state, time.monotonic() - began, _text(step, printed, state))


def _text(step: Step, printed: str, state: str) -> str:
    """The table of a step's JSON, which may be of a part of the step; else the last lines that it printed."""
    file = Path(step.command[-1])
    if step.table is not None and file.suffix == ".json" and file.exists():
        text = step.table(json.loads(file.read_text(encoding="utf-8")))
        return text if state == "done" else f"{text}\n({state}: the results until then)"
    return "\n".join(printed.strip().splitlines()[-12:])


def page(outcomes: Sequence[Outcome]) -> str:
    """All results as Markdown."""
    about = environment()
    gpu = about["gpus"][0]["name"] if about["gpus"] else "no GPU"
    lines = [f"# {gpu}", "", f"torch {torch.__version__}, {about['platform']}, commit {about['commit']}", ""]
    lines += ["```", _summary(outcomes), "```", ""]
    for outcome in outcomes:
        text = "\n".join(outcome.text.splitlines()[:MAX_TABLE_LINES])
        lines += [
            f"## {outcome.step.name}",
            "",
            f"`python {' '.join(map(str, outcome.step.command))[:300]}`",
            "",
            "```",
            text,
            "```",
            "",
        ]
    return "\n".join(lines)


def _summary(outcomes: Sequence[Outcome]) -> str:
    rows = [[o.step.name, o.state, f"{o.seconds:.0f}", f"{o.step.limit_s:.0f}"] for o in outcomes]
    return aligned([["step", "state", "seconds", "limit"], *rows])


def printed_summary(outcomes: Sequence[Outcome]) -> str:
    """The summary and the first lines of each step's result, at most `MAX_PRINTED_LINES` lines."""
    lines = _summary(outcomes).splitlines()
    for outcome in outcomes:
        lines += [f"-- {outcome.step.name}", *(line[:160] for line in outcome.text.splitlines()[:LINES_PER_STEP])]
    return "\n".join(lines[:MAX_PRINTED_LINES])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the results")
    parser.add_argument(
        "--source", type=Path, metavar="FOLDER", help="labelled cases, to train and judge both networks on"
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="for all steps, 8 by default")
    parser.add_argument("--rehearse", action="store_true", help="every step in miniature, on the CPU")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    if not (arguments.rehearse or torch.cuda.is_available()):
        print("error: torch finds no CUDA device; --rehearse runs every step in miniature without one", file=sys.stderr)
        sys.exit(2)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out / "environment.json", json.dumps(environment(), indent=1) + "\n")
    steps = steps_of(arguments.out, rehearse=arguments.rehearse, source=arguments.source)
    outcomes = run_steps(steps, arguments.out, arguments.minutes)
    print(printed_summary(outcomes))
    print(f"written to {arguments.out / 'gpu.md'}")
    sys.exit(0 if all(outcome.state == "done" for outcome in outcomes) else 1)


if __name__ == "__main__":
    main()
