"""SIGTERM and SIGINT to the launcher of several processes: saved at the next step, resumable."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from small_trainings import TWO_PROCESSES, set_options, start, train_command, wait_until

from attunet.runs.load_run import load_run
from attunet.runs.run_folder import read_metrics
from attunet.store import Store


def wait_for_a_step(run: Path, job: subprocess.Popen[str]) -> list[int]:
    """The processes of both ranks, once they train."""
    wait_until((run / "metrics.jsonl").exists, job)
    logs = [(run / "logs" / f"rank-{rank}.log").read_text() for rank in (0, 1)]
    return [int(log.splitlines()[-1].split("process ")[1].split(":")[0]) for log in logs]


@pytest.mark.slow
@pytest.mark.parametrize("everyone", [False, True], ids=["SIGINT to the launcher", "SIGTERM to all, as SLURM does"])
def test_a_launcher_that_is_stopped_stops_every_rank_with_a_checkpoint(
    small_store: Store, tmp_path: Path, everyone: bool
) -> None:
    """The launcher passes on what it gets. A rank that has got it already must not take that for a second signal."""
    run, number = tmp_path / "run", signal.SIGTERM if everyone else signal.SIGINT
    options = ("--resume=auto", *set_options("run.log_every=1 optim.epochs=2000"))
    job = start(train_command(small_store, run, *options, launcher=TWO_PROCESSES))
    ranks = wait_for_a_step(run, job)
    for process in [*(ranks if everyone else []), job.pid]:
        os.kill(process, number)
    output = job.communicate(timeout=60)[0]
    assert job.returncode != 0, "the launcher's own code, which is not the ranks'"
    for rank in (0, 1):
        last = (run / "logs" / f"rank-{rank}.log").read_text().splitlines()[-1]
        assert last.endswith(f"stopped, exit code {128 + number}"), last
    stopped = load_run(run).step
    assert stopped == read_metrics(run)[-1]["step"], "nothing is lost"
    assert output.count(f"stopped after step {stopped}") == 1, output
    assert not (run / "run.lock").exists()
