"""Not a test: one of several processes that train a few steps and validate; rank 0 prints one JSON line.

Batch norm is frozen unless it is synchronised, since each process would normalise over its own slices.

accelerate launch ... measure_processes.py STORE SETTING...
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from attunet.config import ModelConfig, load_config
from attunet.device.accelerator import make_accelerator
from attunet.launch.exit_codes import leave
from attunet.loading.loader import Batch
from attunet.loading.order import Sampling
from attunet.loading.resident import ResidentLoader
from attunet.models import build_model
from attunet.store import open_store
from attunet.training.trainer import Trainer
from attunet.training.validation import Validator

STEPS = 20
SETTINGS = ["optim.batch_size=5", "optim.epochs=5", "run.mixed_precision=no", "run.device=cpu", "optim.lr=5e-3"]


def main(store_path: Path, settings: list[str]) -> None:
    store, config = open_store(store_path), load_config(None, [*SETTINGS, *settings])
    accelerator = make_accelerator(config.run)
    cases = [case.name for case in store.cases]
    torch.manual_seed(0)
    network = build_model(ModelConfig(name="attention_unet", base_width=4, depth=2), 1, 5)
    sampling = Sampling(0, 5, accelerator.process_index, accelerator.num_processes)
    trainer = Trainer(network, ResidentLoader(store, cases, accelerator.device, sampling), 5, config, accelerator)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and not config.run.sync_batch_norm:
            module.eval()
    seen, taken = [], trainer.loader.take

    def watched(step: int) -> Batch:
        batch = taken(step)
        seen.extend(int(s) for s in batch.samples)
        return batch

    trainer.loader.take = watched  # type: ignore[method-assign]
    losses = []
    for step in range(STEPS):
        trainer.step(step)
        losses.append(trainer.read_losses().loss)
    everyone: list[list[int]] = [seen]
    if accelerator.num_processes > 1:
        everyone = [[] for _ in range(accelerator.num_processes)]
        torch.distributed.all_gather_object(everyone, seen)
    expected = np.concatenate([trainer.loader.draw.step(step)[1] for step in range(STEPS)])
    torch.manual_seed(1)
    fixed = build_model(ModelConfig(name="unet", base_width=4, depth=2), 1, 5).eval()
    result = Validator(store, cases, accelerator, config.optim).validate(fixed)
    if accelerator.is_main_process:
        same = sorted(sample for part in everyone for sample in part) == sorted(expected.tolist())
        print(
            json.dumps(
                {
                    "processes": accelerator.num_processes,
                    "losses": losses,
                    "each_once": same,
                    "validation": asdict(result),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
    leave(0)
