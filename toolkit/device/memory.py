"""Memory of the training device: out-of-memory errors, the budget for slices, the peak."""

from pathlib import Path

import psutil
import torch

from attunet.system.environment import peak_resident_mb
from attunet.system.launcher_variables import launcher_number

MESSAGES = (
    *("can't allocate memory", "posix_memalign failed", "not enough memory", "bad_alloc"),
    *("could not create a memory object", "could not create a primitive"),  # OneDNN's only ones without memory
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)
RESIDENT_SHARE = 0.4  # fraction of the free memory used for resident slices; the rest is for activations and weights


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error means that memory was missing: PyTorch has a type for it on a GPU, and many messages on
    the host and through libraries, of which Accelerate's `should_reduce_batch_size` knows fewer.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in MESSAGES)


def memory_budget(device: torch.device, resident_gb: float | str, num_processes: int) -> int:
    """Return the bytes that the slices of one process may take: `resident_gb` times 10^9, or with "auto"
    `RESIDENT_SHARE` of the free memory, which the processes of a host share.
    """
    if resident_gb != "auto":
        return int(float(resident_gb) * 1e9)
    if device.type == "cuda":
        return int(RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0])
    local_processes = launcher_number("LOCAL_WORLD_SIZE", max(1, num_processes), low=1)
    return int(RESIDENT_SHARE * _free_host_memory() / local_processes)


def _free_host_memory() -> int:
    """Free bytes of the machine, or of the container's limit where that is less; psutil does not read that limit."""
    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    limit, used = _first_line(group / "memory.max"), _first_line(group / "memory.current")
    if limit.isdigit() and used.isdigit():
        free = min(free, max(0, int(limit) - int(used)))
    return free


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0]
    except OSError:
        return ""


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work; does nothing on the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_mb(device: torch.device) -> float | None:
    """Return the peak in 10^6 bytes: of tensors on a GPU, of the process's resident memory on the CPU, if known."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else peak_resident_mb()
