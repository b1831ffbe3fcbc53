"""Trainings in child processes, which are killed and resume."""

import json
import os
import signal
from pathlib import Path

from forked import run_ranks

from attunet.config import load_config
from attunet.loading.resident import ResidentLoader
from attunet.training.loop import train

ATTEMPTS = 6


def kill_and_resume(store: Path, folder: Path, config: Path, processes: list[int], moments: list[str]) -> None:
    """Trains until it is done, once for each moment, and prints a JSON line with the exit codes of the attempts.

    A training in FOLDER/MOMENT is killed by SIGKILL (in all attempts of `processes` but the last, and in the first),
    then resumed. A whole number is a write to the disk that matters (fsync or rename), and rank 0 is killed just before
    that one; one with a point is seconds, and a process drawn from it is killed. Then the others are, as a launcher
    does. Moment 0 is never killed. What each process took in each step is in FOLDER/MOMENT.samples.

    Args:
        processes: how many each attempt has; the last number holds from there on.
    """
    killed = max(1, len(processes) - 1)
    for moment in moments:
        codes: list[int] = []
        while not codes or (codes[-1] != 0 and len(codes) < ATTEMPTS):
            number, world = len(codes), processes[min(len(codes), len(processes) - 1)]

            def work(rank: int, number: int = number, moment: str = moment) -> None:
                if rank == 0 and number < killed and "." not in moment and moment != "0":
                    kill_at_write(int(moment))
                note_samples(folder / f"{moment}.samples", number)
                train(store, folder / moment, load_config(config), fold=0, resume="auto")

            codes.append(run_ranks(work, world, float(moment) if "." in moment and number < killed else None))
        print(json.dumps({"moment": moment, "codes": codes}), flush=True)


def kill_at_write(boundary: int) -> None:
    left = boundary

    def counting(write):
        def wrapped(*arguments, **options):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return write(*arguments, **options)

        return wrapped

    os.fsync, os.rename = counting(os.fsync), counting(os.rename)


def note_samples(path: Path, attempt: int) -> None:
    take = ResidentLoader.take
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))

    def noting(self: ResidentLoader, step: int):
        batch = take(self, step)
        row = {"attempt": attempt, "step": step, "world": world, "rank": rank, "samples": batch.samples.tolist()}
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        return batch

    ResidentLoader.take = noting  # type: ignore[method-assign]
