"""The peak of a process's resident memory."""

import sys
from pathlib import Path


def peak_resident_mb() -> float | None:
    """Return the largest resident memory of this process so far, in 10^6 bytes; None on systems without it.

    Linux: VmHWM. `getrusage` keeps the maximum of the parent across fork and exec, so a child of a large process would
    look large.
    """
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("VmHWM:")), None)
