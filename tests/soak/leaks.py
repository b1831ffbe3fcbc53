"""Memory, threads and file handles after many predictions, trainings and requests:
`leaks.py KIND FOLDER COUNT` prints JSON.

Each kind runs in a process of its own. The first fifth warms up: what is allocated once is no leak.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from promises import Result  # type: ignore[import-not-found]

COUNTS = {"predictions": 500, "trainings": 50, "requests": 2000}  # of a whole soak
FEWEST = {"predictions": 40, "trainings": 6, "requests": 100}
SETTLED_S = 10.0  # within which the threads of finished work end
GROWTH, GROWTH_MB = 1.05, 12.0  # of resident memory; both together are allowed

State = tuple[float, int, int]  # resident MB, threads, file handles


def state_of(process: int | str = "self") -> State:
    """Resident memory in MB, threads and open files of a process."""
    rows = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines() if ":" in line)
    return int(rows["VmRSS"].split()[0]) / 1024, int(rows["Threads"]), len(os.listdir(f"/proc/{process}/fd"))


def predictions(folder: Path, count: int) -> list[State]:
    from attunet.export.runtime.segmenter import Segmenter

    segmenter, scan = (
        Segmenter(folder / "model.onnx", num_threads=1),
        sorted((folder / "scans").glob("*-src.nii.gz"))[0],
    )
    return _watched(count, lambda number: segmenter.predict_file(scan))


def trainings(folder: Path, count: int) -> list[State]:
    """Trainings that finish and, in turns, trainings that are stopped by SIGTERM at their first steps."""
    from attunet import read_config, train

    quick = ["model.base_width=4", "model.depth=2", "run.mixed_precision=no", "run.device=cpu", "optim.batch_size=4"]

    def one(number: int) -> None:
        run, stops = folder / f"leak-{number}", number % 2 == 1
        config = read_config(None, [*quick, f"optim.epochs={2000 if stops else 1}"])
        if stops:
            threading.Thread(target=_stop_at_first_steps, args=(run / "metrics.jsonl",), daemon=True).start()
        with suppress(SystemExit):
            train(folder / "store", run, config, fold=0)
        subprocess.run(["rm", "-r", str(run)], check=True)

    return _watched(count, one)


def requests(folder: Path, count: int) -> list[State]:
    """Requests to a server: scans, summaries and addresses; the figures are the server's."""
    from attunet.export.serve.client import Client

    command = [
        sys.executable,
        "-m",
        "attunet.launch.cli",
        "serve",
        str(folder / "model.onnx"),
        "--port",
        "0",
        "--threads",
        "1",
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert server.stdout is not None
        address = next(found[1] for line in server.stdout if (found := re.search(r"serving at ([^\s\"]+)", line)))
        threading.Thread(target=server.stdout.read, daemon=True).start()
        scan = sorted((folder / "scans").glob("*-src.nii.gz"))[0]
        with Client(address) as client:
            return _watched(count, lambda number: client.segment(scan, folder / "leak.nii.gz"), server.pid)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


KINDS: dict[str, Callable[[Path, int], list[State]]] = {
    "predictions": predictions,
    "trainings": trainings,
    "requests": requests,
}


def leaks(folder: Path, part_of_whole: float) -> list[Result]:
    """One row for each kind, in a process of its own. part_of_whole: of the `COUNTS`."""
    results = []
    for kind, whole in COUNTS.items():
        count, began = max(FEWEST[kind], round(whole * part_of_whole)), time.monotonic()
        command = [sys.executable, __file__, kind, str(folder), str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        result = Result("leaks", kind, count, seconds=time.monotonic() - began)
        if done.returncode:
            result.finds.append(f"ended with {done.returncode}: {' '.join(done.stderr.split())[-600:]}")
        else:
            warm, end = json.loads(done.stdout.splitlines()[-1])
            result.note = (
                f"{warm[0]:.0f} to {end[0]:.0f} MB, {warm[1]} to {end[1]} threads, {warm[2]} to {end[2]} files"
            )
            if end[0] > GROWTH * warm[0] + GROWTH_MB or end[1] > warm[1] or end[2] > warm[2]:
                result.finds.append(f"grows: {result.note}")
        results.append(result)
    return results


def _watched(count: int, work: Callable[[int], object], process: int | str = "self") -> list[State]:
    """The state after a fifth of the work, and at the end."""
    warm = max(2, count // 5)
    for number in range(warm):
        work(number)
    time.sleep(SETTLED_S / 10)
    before = state_of(process)
    for number in range(warm, count):
        work(number)
    return [before, _settled(before, process)]


def _settled(before: State, process: int | str) -> State:
    """The state once threads and files of the last work are gone, or after `SETTLED_S`."""
    end = time.monotonic() + SETTLED_S
    while True:
        state = state_of(process)
        if (state[1] <= before[1] and state[2] <= before[2]) or time.monotonic() > end:
            return state
        time.sleep(0.1)


def _stop_at_first_steps(metrics: Path) -> None:
    end = time.monotonic() + 60
    while not metrics.exists() and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    print(json.dumps(KINDS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
