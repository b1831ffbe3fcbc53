"""Steps one after the other, each in a process of its own with a time limit, and a page of their results."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from attunet.benchmarks.evaluation.results_table import aligned
from attunet.benchmarks.speed.gpu.steps import Step
from attunet.system.atomic_files import write_text
from attunet.system.environment import environment

KILL_AFTER_S = 5  # of a step that SIGTERM does not end
MAX_TABLE_LINES, MAX_PRINTED_LINES = 60, 12  # of one step on the page: of its table, or of what it printed


@dataclass(frozen=True)
class Outcome:
    step: Step
    state: str  # done, failed, out of time or not begun
    seconds: float
    text: str  # table or last printed lines


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
    if step.table is not None:  # an earlier call's results are not this one's
        Path(step.command[-1]).unlink(missing_ok=True)
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
    if step.table is not None and file.exists():
        text = step.table(json.loads(file.read_text(encoding="utf-8")))
        return text if state == "done" else f"{text}\n({state}: the results until then)"
    return "\n".join(printed.strip().splitlines()[-MAX_PRINTED_LINES:])


def page(outcomes: Sequence[Outcome]) -> str:
    about = environment()
    gpu = about["gpus"][0]["name"] if about["gpus"] else "no GPU"
    parts = [f"# {gpu}", f"torch {torch.__version__}, {about['platform']}, commit {about['commit']}"]
    parts.append(f"```\n{summary(outcomes)}\n```")
    for outcome in outcomes:
        text = "\n".join(outcome.text.splitlines()[:MAX_TABLE_LINES])
        command = " ".join(outcome.step.command)[:300]
        parts += [f"## {outcome.step.name}", f"`python {command}`", f"```\n{text}\n```"]
    return "\n\n".join(parts) + "\n"


def summary(outcomes: Sequence[Outcome]) -> str:
    """The state and the seconds of each step as aligned text."""
    rows = [[o.step.name, o.state, f"{o.seconds:.0f}", f"{o.step.limit_s:.0f}"] for o in outcomes]
    return aligned([["step", "state", "seconds", "limit"], *rows])
