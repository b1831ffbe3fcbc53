"""Peak memory of a process that loads and runs one model.

`python -m attunet.benchmarks.evaluation.memory MODEL` prints one JSON line. On the CPU the figure is the peak resident
memory, libraries included; on a GPU it is the increase of the device memory in use, which allocators do not give back.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from attunet.benchmarks.evaluation.models import load_models
from attunet.errors import InputError, RunError
from attunet.system.environment import gpu_memory_used_mb
from attunet.system.peak_memory import peak_resident_mb

TIMEOUT_S = 600


def peak_memory_mb(model: Path, *, provider: str, batch_size: int = 8) -> float | None:
    """Measures a model in a new process.

    Args:
        provider: that computes an artefact; for a run the device, `cpu` or `cuda`.

    Returns:
        Megabytes, None if the system does not report them.

    Raises:
        RunError: if the process fails or takes longer than `TIMEOUT_S`.
    """
    command = [sys.executable, "-m", "attunet.benchmarks.evaluation.memory", str(model), "--provider", provider]
    try:
        done = subprocess.run(
            [*command, "--batch-size", str(batch_size)], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"{model}: measuring its memory took longer than {TIMEOUT_S} s") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        raise RunError(f"{model}: measuring its memory failed: {last}") from None
    peak = json.loads(done.stdout.splitlines()[-1])["peak_memory_mb"]
    return None if peak is None else float(peak)


def _measure(model: Path, provider: str, batch_size: int) -> float | None:
    on_gpu = provider in ("cuda", "tensorrt")
    before = gpu_memory_used_mb() if on_gpu else None
    where = {"device": provider} if model.is_dir() else {"providers": (provider,)}
    loaded = load_models([model], **where)[0]
    slices = loaded.random_slices(batch_size)
    run = loaded.timed_call(slices)
    for _ in range(3):
        run()
    if not on_gpu:
        return peak_resident_mb()
    after = gpu_memory_used_mb()
    return None if before is None or after is None else after - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--provider", default="cpu", help="of an artefact; for a run the device, cpu or cuda")
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    try:
        peak = _measure(arguments.model, arguments.provider, arguments.batch_size)
    except (InputError, RunError) as error:
        sys.exit(str(error))
    print(json.dumps({"peak_memory_mb": peak}))


if __name__ == "__main__":
    main()
