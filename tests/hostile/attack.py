"""Inspects every hostile file in a child of its own: `attack.py FOLDER` prints one JSON line for each.

The parent imports everything once and forks, so that a file costs milliseconds. A child has 10 seconds of a core and
1 GB above what the parent has; the limits are the test's, the product stays far below.
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from corpus import CORPUS, Hostile  # type: ignore[import-not-found]

from attunet.errors import InputError, RunError
from attunet.export.artefact import card as _card  # noqa: F401  # loaded before the forks, as is torch
from attunet.launch.commands.inspect import describe
from attunet.runs import ensemble as _ensemble  # noqa: F401
from attunet.sources.case_files import DEFAULTS
from attunet.system.environment import peak_resident_mb

SECONDS, GIGABYTE = 10, 2**30


def data_bytes() -> int:
    """Private writable memory of this process, which RLIMIT_DATA bounds."""
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(rows["VmData"].split()[0]) * 1024


def attack(path: Path) -> tuple[str, str]:
    """Name of what came out, and its text."""
    try:
        lines = list(describe(path, DEFAULTS))
    except (InputError, RunError) as error:
        return "InputError" if isinstance(error, InputError) else "RunError", str(error)
    return "lines", "\n".join(lines)


def attacked(one: Hostile, folder: Path) -> dict[str, object]:
    path = folder / one.name
    one.make(path)
    reader, writer = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reader)
        limit = data_bytes() + GIGABYTE
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of computing, whatever else the machine does
        signal.alarm(12 * SECONDS)  # for what waits instead, as for a pipe
        try:
            kind, text = attack(path)
        except BaseException as error:  # anything but the project's own error is what is looked for
            kind, text = f"!{type(error).__name__}", str(error)[:300]
        peak = round(peak_resident_mb() or 0)
        os.write(writer, json.dumps({"kind": kind, "text": text[:2000], "peak_mb": peak}).encode()[:60000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    outcome = json.loads(answer) if answer else {"kind": f"!died of status {status}", "text": "", "peak_mb": 0}
    return {"name": one.name, "seconds": round(time.monotonic() - began, 2), **outcome}


if __name__ == "__main__":
    for entry in CORPUS:
        print(json.dumps(attacked(entry, Path(sys.argv[1]))), flush=True)
