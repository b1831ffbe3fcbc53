"""Not a test: takes a step in a process whose memory is limited to little more than it has; prints the error.

exhaust_memory.py STORE SETTING...
"""

import ctypes
import resource
import sys
from pathlib import Path

import torch

from attunet.config import ModelConfig, load_config
from attunet.device.accelerator import make_accelerator
from attunet.errors import RunError
from attunet.loading.resident import ResidentLoader
from attunet.models import build_model
from attunet.store import open_store
from attunet.training.trainer import Trainee

LEFT_BYTES = 400 * 10**6
MAX_MMAPS = -4  # glibc's number of the setting


def main(store_path: Path, settings: list[str]) -> None:
    store, config = open_store(store_path), load_config(None, ["optim.epochs=1", *settings])
    network = build_model(ModelConfig(name="unet", base_width=32, depth=2), 1, 5)
    loader = ResidentLoader(store, [case.name for case in store.cases], torch.device("cpu"))
    trainee = Trainee(network, loader, 5, config, make_accelerator(config.run))
    # Every large tensor gets pages of its own again: in a heap that is kept, holes of the wrong size count as used.
    ctypes.CDLL(None).mallopt(MAX_MMAPS, 65536)
    trainee._rehearse(1)  # loads what libraries load with their first call
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + LEFT_BYTES, mapped + LEFT_BYTES))
    try:
        trainee.step(0)
    except RunError as error:
        print(error)
    else:
        print("it fits")


if __name__ == "__main__":
    with torch.backends.mkldnn.flags(enabled=False):  # which now and then crashes where it gets no memory for its own kernels
        main(Path(sys.argv[1]), sys.argv[2:])
