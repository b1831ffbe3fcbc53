"""Out of memory: recognised on the GPU and on the host, and answered with the batch that fits."""

import ctypes
import sys
import traceback
from collections.abc import Callable

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
