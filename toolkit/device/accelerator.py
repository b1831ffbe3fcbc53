"""Set-up of Accelerate (device, precision, processes), and collectives of the processes."""

import ctypes
import os
import re
import sys
import warnings
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as distributed
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list

from attunet.config import RunConfig
from attunet.errors import InputError, RunError, one_line
from attunet.system.launcher_variables import launcher_number

Value = TypeVar("Value")


def make_accelerator(run: RunConfig) -> Accelerator:
    """Make the accelerator of this process and set PyTorch's backends for speed.

    Raises:
        InputError: the machine cannot do what `run` asks for.
    """
    if run.device == "cuda" and not torch.cuda.is_available():
        raise InputError("run.device: is cuda, but this machine has no CUDA device that PyTorch can use")
    on_cpu = run.device == "cpu" or not torch.cuda.is_available()
    precision: str = run.mixed_precision
    if precision == "auto":
        precision = _fast_precision(on_cpu)
    if precision == "fp16" and on_cpu:
        raise InputError("run.mixed_precision: fp16 needs a GPU; on the CPU use bf16 or no")
    if on_cpu:
        keep_freed_memory()
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    # Batch-norm buffers are averaged by the trainer: no broadcast before each step.
    # Its successor is not in torch 2.10
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    ddp = DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False)
    for name, low in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1)):
        launcher_number(name, low, low=low)
    try:
        _join_processes(timedelta(minutes=run.timeout_minutes), on_cpu)
        AcceleratorState._reset_state()  # a singleton, which refuses a second training with another precision
        return Accelerator(
            mixed_precision=precision, cpu=on_cpu, kwargs_handlers=[ddp], step_scheduler_with_optimizer=False
        )
    except (ValueError, ImportError) as error:  # MASTER_PORT, ACCELERATE_...
        values = re.split(r"[\s'\"]+", str(error).lower())  # the error has a variable's value, and not its name
        named = ", ".join(sorted(name for name, value in os.environ.items() if value and value.lower() in values))
        rule = "accelerate does not start with its variables"
        raise InputError(f"environment: {rule}{named and f' ({named})'}: {one_line(error)}") from error
    except RuntimeError as error:  # ACCELERATE_TORCH_DEVICE, or the other processes are not there
        raise RunError(f"accelerate does not start: {one_line(error)}") from error


def _join_processes(timeout: timedelta, on_cpu: bool) -> None:
    """Initialise torch.distributed in a process that a launcher started; collectives fail after `timeout`.

    A launcher that restarts a job keeps its key-value store with the addresses of the dead processes. So each restart
    uses its own prefix there; without it, a process may connect to one that is gone.
    """
    if launcher_number("WORLD_SIZE", 1, low=1) == 1 or distributed.is_initialized():
        return
    store, rank, world_size = next(distributed.rendezvous("env://", timeout=timeout))  # type: ignore[attr-defined]
    own = distributed.PrefixStore(f"try-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)  # type: ignore[attr-defined]
    backend = "gloo" if on_cpu else "nccl"
    if not on_cpu:
        # NCCL ends the process without a message: the group on the host (see Heartbeat) fails earlier
        timeout += timedelta(minutes=1)
    distributed.init_process_group(backend, store=own, rank=rank, world_size=world_size, timeout=timeout)


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks instead of returning them to the system.

    Each step on the CPU frees and allocates the same hundreds of megabytes, and every page that was returned is a page
    fault later: 0.22 s a step instead of 0.25 for the 16-wide network at 192², batch 8, on two cores.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD of malloc.h
        libc.mallopt(-4, 0)  # M_MMAP_MAX


def _fast_precision(on_cpu: bool) -> str:
    if not on_cpu:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "no"


def of_first_process(value: Value) -> Value:
    """Return the value that the first process passes, in all processes."""
    values: list[Value] = broadcast_object_list([value])
    return values[0]


def average_over_processes(tensors: Sequence[torch.Tensor]) -> None:
    """Average tensors of one type over the processes, in place, in one collective."""
    if not tensors or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for tensor, mean in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))
