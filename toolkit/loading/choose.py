"""Where a training keeps its slices: on the device if they fit the budget, streamed from the store if not."""

from collections.abc import Sequence

from accelerate import Accelerator
from accelerate.utils import gather_object

from attunet.device.memory import is_out_of_memory, memory_budget
from attunet.errors import InputError, RunError
from attunet.loading.loader import Loader
from attunet.loading.order import LANES, LaneOrder
from attunet.loading.resident import ResidentLoader
from attunet.loading.streamed import StreamedLoader
from attunet.store import Store

TIERS = ("resident", "shared", "streamed")


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
