"""The choice of the loader: slices on the device if they fit the memory budget, otherwise streamed from the store."""

from collections.abc import Sequence

from accelerate import Accelerator
from accelerate.utils import gather_object

from attunet.config import ResolvedConfig
from attunet.device.memory import is_out_of_memory, memory_budget
from attunet.errors import RunError
from attunet.loading.loader import Loader
from attunet.loading.order import Sampling
from attunet.loading.resident import ResidentLoader
from attunet.loading.streamed import StreamedLoader
from attunet.store import Store


def make_loader(
    store: Store, cases: Sequence[str], accelerator: Accelerator, config: ResolvedConfig, *, tier: str | None = None
) -> Loader:
    """Make the loader of this process. tier: "resident" or "streamed", as a run began with it; None chooses by
    `run.resident_gb`. Raises RunError where the slices do not fit into the device's memory.

    Example:
        >>> loader = make_loader(store, training_cases, make_accelerator(config.run), config)
        >>> images, labels = loader.take(0).images, loader.take(0).labels
    """
    world, device = accelerator.num_processes, accelerator.device
    if tier is None:
        budgets = gather_object([memory_budget(device, config.run.resident_gb, world)])
        tier = choose_tier(store, cases, min(budgets))  # alike in all processes
    sampling = Sampling(config.run.seed, config.optim.batch_size, accelerator.process_index, world)
    if tier == "streamed":
        return StreamedLoader(store, cases, device, sampling)
    try:
        return ResidentLoader(store, cases, device, sampling)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(
            f"run.resident_gb: the slices of this training do not fit into the memory of {device}; 0 streams them"
        ) from None


def choose_tier(store: Store, cases: Sequence[str], budget: int) -> str:
    """Return "resident" if the slices of all cases fit into `budget` bytes, else "streamed"."""
    num_samples = sum(store.case(case).num_slices for case in cases)
    slice_bytes = (2 * store.spec.num_channels + 1) * store.spec.size[0] * store.spec.size[1]
    return "resident" if num_samples * slice_bytes <= budget else "streamed"
