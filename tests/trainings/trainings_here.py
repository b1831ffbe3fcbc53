"""Trainings of a comparison in this process: one of their own takes seconds to import PyTorch."""

import contextlib
from types import TracebackType
from typing import Self

from attunet.benchmarks.crossvalidation import jobs
from attunet.benchmarks.evaluation import evaluate
from attunet.launch.commands import demo
from attunet.launch.exit_codes import run_command
from attunet.launch.train import train_command


class EndedTraining:
    """What `subprocess.Popen` gives, of a training that has ended."""

    def __init__(self, job: jobs.Job, environment: dict[str, str]) -> None:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            self.code = run_command(train_command, "python -m attunet.launch.train", job.arguments)

    def poll(self) -> int:
        return self.code

    wait = poll

    def terminate(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass


def shorten() -> None:
    """In a program of a test: no processes for trainings and for the memory of models, no figures, short times."""
    jobs._start = EndedTraining  # type: ignore[assignment]
    evaluate.peak_memory_mb = lambda *_, **__: 1.0  # type: ignore[assignment]
    evaluate.draw_evaluation = lambda *_, **__: None  # type: ignore[assignment]
    demo.LATENCY_SECONDS = 0.02
