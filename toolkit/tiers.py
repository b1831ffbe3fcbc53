"""Where a training keeps its slices: on the device if they fit the budget, streamed from the store if not."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from attunet.errors import InputError, RunError
from attunet.loader import Loader, ResidentLoader
from attunet.out_of_memory import is_out_of_memory
from attunet.sampler import LANES, LaneOrder
from attunet.store import Store
from attunet.streaming import StreamedLoader

TIERS = ("resident", "shared", "streamed")
AUTO_SHARE = 0.4  # of the memory that is free: the rest is for activations, weights and whatever else runs


def make_loader(
    store: Store, cases: Sequence[str], accelerator: Accelerator, *, resident_gb: float | str, tier: str | None = None
) -> Loader:
    """The loader of this process. tier: the one that a training began with, which it keeps; None chooses by the budget.

    resident_gb: 10^9 bytes that the slices of one process may take, "auto" for a share of what is free; `run.resident_gb`.
    """
    rank, world, device = accelerator.process_index, accelerator.num_processes, accelerator.device
    if tier is None:
        budget = memory_budget(device, resident_gb, accelerator.num_processes)
        if world > 1:
            budget = min(gather_object([budget]))  # every process must choose alike
        tier = choose_tier(store, cases, budget, world)
    if tier == "streamed":
        return StreamedLoader(store, cases, device)
    if tier == "shared" and LANES % world:
        raise InputError(f"this run keeps a share of the slices on each device: the number of processes must divide {LANES}, got {world}")
    try:
        return ResidentLoader(store, cases, device, share=(rank, world) if tier == "shared" else None)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(f"run.resident_gb: the slices of this training do not fit into the memory of {device}; 0 streams them") from None


def choose_tier(store: Store, cases: Sequence[str], budget: int, world: int) -> str:
    """`resident` if all slices fit into `budget` bytes on each device, `shared` if a process's share does, else `streamed`."""
    num_samples = sum(store.case(case).num_slices for case in cases)
    slice_bytes = (2 * store.spec.num_channels + 1) * store.spec.size[0] * store.spec.size[1]
    if num_samples * slice_bytes <= budget:
        return "resident"
    if world > 1 and LANES % world == 0 and num_samples >= LANES:
        # With context slices a few more are held, at the ends of the runs.
        held = len(LaneOrder(0, num_samples).held(0, world)) + LANES // world * (store.spec.context_slices - 1)
        if held * slice_bytes <= budget:
            return "shared"
    return "streamed"


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
