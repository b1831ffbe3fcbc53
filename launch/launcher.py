"""This process's share of the work, from the environment variables of `accelerate launch` and SLURM."""

import os
from collections.abc import Mapping

from attunet.errors import InputError
from attunet.system.workers import usable_cores


def shard_of(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """This process's number and how many share the work, by `accelerate launch` or SLURM; (0, 1) alone."""
    for number, count, first in (
        ("RANK", "WORLD_SIZE", None),
        ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
        ("SLURM_PROCID", "SLURM_NTASKS", None),
    ):
        if number not in environment or count not in environment:
            continue
        try:
            index, total = int(environment[number]), int(environment[count])
            index -= int(environment.get(first, 0)) if first else 0
        except ValueError:
            raise InputError(
                f"{number}, {count}: must be integers, got {environment[number]!r} and {environment[count]!r}"
            ) from None
        step = int(environment.get("SLURM_ARRAY_TASK_STEP", "1")) if first else 1
        index //= max(step, 1)
        if not 0 <= index < total:
            raise InputError(f"{number}: must be below {count}, got {index} of {total}")
        return index, total
    return 0, 1


def local_gpu(environment: Mapping[str, str] = os.environ) -> int:
    """The GPU of this process; all processes of a machine see all of its GPUs."""
    rank = environment.get("LOCAL_RANK", "0")
    if not rank.isdecimal():
        raise InputError(f"LOCAL_RANK: must be an integer of at least 0, got {rank!r}")
    return int(rank)


def local_threads(environment: Mapping[str, str] = os.environ) -> int | None:
    """CPU threads of one of several processes of a machine; None for a process alone: the library's own choice."""
    count = environment.get("LOCAL_WORLD_SIZE", "1")
    if not count.isdecimal() or int(count) < 1:
        raise InputError(f"LOCAL_WORLD_SIZE: must be an integer of at least 1, got {count!r}")
    return None if int(count) == 1 else max(1, usable_cores() // int(count))
