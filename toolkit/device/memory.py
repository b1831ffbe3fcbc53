"""Out of memory: recognised on the GPU and on the host, and answered with the batch that fits."""

import ctypes
import os
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

ON_THE_HOST = ("can't allocate memory", "posix_memalign failed", "not enough memory", "bad_alloc")
ONEDNN = ("could not create a memory object", "could not create a primitive")  # all that it says when it gets no memory
ON_THE_GPU = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory is what was missing: torch says so on a GPU by type, on the host and through libraries in words alone."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ON_THE_HOST + ONEDNN + ON_THE_GPU)


def forget(error: BaseException) -> None:
    """Frees what the frames that an error went through still hold: a failed step's activations."""
    traceback.clear_frames(error.__traceback__)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # freed memory is kept for the next step, see keep_freed_memory; now others need it


def largest_that_fits(attempt: Callable[[int], object], below: int) -> int:
    """The first of below / 2, below / 4, ... for which `attempt` has memory enough; 0 if not even 1 has.

    A size is tried, not computed: what fits is proven, and what a library takes for its work space is in it.
    """
    count = below // 2
    while count:
        try:
            attempt(count)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            forget(error)
            count //= 2
        else:
            break
    return count


AUTO_SHARE = 0.4  # of the memory that is free: the rest is for activations, weights and whatever else runs


def memory_budget(device: torch.device, resident_gb: float | str, num_processes: int) -> int:
    """Bytes that the slices of one process may take."""
    if resident_gb != "auto":
        return int(float(resident_gb) * 1e9)
    if device.type == "cuda":
        return int(AUTO_SHARE * torch.cuda.mem_get_info(device)[0])
    here = int(os.environ.get("LOCAL_WORLD_SIZE", num_processes))
    return int(AUTO_SHARE * _free_host_memory() / max(1, here))


def _free_host_memory() -> int:
    """Bytes; what a container's limit leaves, where that is less."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            free = 1024 * int(line.split()[1])
    group = Path("/sys/fs/cgroup")
    limit, used = _lines(group / "memory.max"), _lines(group / "memory.current")
    if limit and used and limit[0].isdigit():
        free = min(free, max(0, int(limit[0]) - int(used[0])))
    return free


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_mb(device: torch.device) -> float:
    """The most that tensors took on a GPU, or that the process took of the host's memory, so far, in 10^6 bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
