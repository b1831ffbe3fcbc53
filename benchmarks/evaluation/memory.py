"""Peak memory of a process that loads and runs one model.

`python -m attunet.benchmarks.evaluation.memory MODEL` prints one JSON line. On the CPU the figure is the peak resident
memory, libraries included; on a GPU it is the increase of the device memory in use, which allocators do not give back.
"""

import json
import logging
import subprocess
import sys
from pathlib import Path

from attunet.benchmarks.evaluation.models import load_models
from attunet.benchmarks.program import program_parser, running
from attunet.export.runtime.backends.open_backend import GPU_PROVIDERS
from attunet.system.environment import gpu_memory_used_mb, peak_resident_mb

logger = logging.getLogger(__name__)

TIMEOUT_S = 600
BATCH_SIZE = 8


def peak_memory_mb(model: Path, *, provider: str) -> float | None:
    """Measures a model in a new process. provider: of an artefact; for a run the device, `cpu` or `cuda`.

    Returns:
        Megabytes; None if the system does not report them, and, with a line in the log, if the process fails or takes
        longer than `TIMEOUT_S`.
    """
    command = [sys.executable, "-P", "-m", "attunet.benchmarks.evaluation.memory", str(model), "--provider", provider]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    except subprocess.TimeoutExpired:
        logger.info(f"no figure for memory: {model}: measuring its memory took longer than {TIMEOUT_S} s")
        return None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1].removeprefix("error: ")
        logger.info(f"no figure for memory: {model}: measuring its memory failed: {last}")
        return None
    peak = json.loads(done.stdout.splitlines()[-1])["peak_memory_mb"]
    return None if peak is None else float(peak)


def _measure(model: Path, provider: str) -> float | None:
    on_gpu = provider in GPU_PROVIDERS
    before = gpu_memory_used_mb() if on_gpu else None
    (loaded,) = load_models([model], device=provider) if model.is_dir() else load_models([model], providers=[provider])
    run = loaded.timed_call(loaded.random_slices(BATCH_SIZE))
    for _ in range(3):
        run()
    if not on_gpu:
        return peak_resident_mb()
    after = gpu_memory_used_mb()
    return None if before is None or after is None else after - before


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--provider", default="cpu", help="of an artefact; for a run the device, cpu or cuda")
    arguments = parser.parse_args()
    with running(sys.stderr):
        print(json.dumps({"peak_memory_mb": _measure(arguments.model, arguments.provider)}))


if __name__ == "__main__":
    main()
