"""This process's share of the work, from the environment variables of `accelerate launch` and SLURM."""

import os

from attunet.errors import InputError
from attunet.system.launcher_variables import launcher_number
from attunet.system.workers import usable_cores

# Number of a process, and of all. SLURM_NTASKS is set in a batch script too, which no `srun` has started several times
SHARES = (
    ("RANK", "WORLD_SIZE"),
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)


def shard_of() -> tuple[int, int]:
    """This process's number and how many share the work, by `accelerate launch` or SLURM; (0, 1) alone."""
    for number, count in SHARES:
        if number not in os.environ or count not in os.environ:
            continue
        index, total = launcher_number(number, 0), launcher_number(count, 1, low=1)
        if number == "SLURM_ARRAY_TASK_ID":
            first, step = launcher_number("SLURM_ARRAY_TASK_MIN", 0), launcher_number("SLURM_ARRAY_TASK_STEP", 1, low=1)
            index = (index - first) // step
        if not 0 <= index < total:
            raise InputError(f"{number}: must be below {count}, got {index} of {total}")
        return index, total
    return 0, 1


def local_gpu() -> int:
    """The GPU of this process; all processes of a machine see all of its GPUs."""
    return launcher_number("LOCAL_RANK", 0)


def local_threads() -> int | None:
    """CPU threads of one of several processes of a machine; None for a process alone: the library's own choice."""
    count = launcher_number("LOCAL_WORLD_SIZE", 1, low=1)
    return None if count == 1 else max(1, usable_cores() // count)
