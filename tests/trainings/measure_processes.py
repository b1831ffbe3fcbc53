"""Several processes that train a few steps and validate; rank 0 prints one JSON line.

Batch norm is frozen unless it is synchronised, since each process would normalise over its own slices.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from forked import run_ranks
from small_trainings import make_trainer
from torch import nn

from attunet.config import ModelConfig
from attunet.loading.loader import Batch
from attunet.models import build_model
from attunet.store import open_store
from attunet.training.validation import Validator

STEPS = 20


def measure_processes(processes: int, store_path: Path, settings: Sequence[str]) -> None:
    sys.exit(run_ranks(lambda rank: _measure(store_path, settings), processes))


def _measure(store_path: Path, settings: Sequence[str]) -> None:
    store = open_store(store_path)
    trainer = make_trainer(store, "optim.batch_size=5 optim.epochs=5 optim.lr=5e-3", *settings)
    config, accelerator = trainer.config, trainer.accelerator
    for module in trainer.network.modules():
        if isinstance(module, nn.BatchNorm2d) and not config.run.sync_batch_norm:
            module.eval()
    seen, taken = [], trainer.loader.take

    def watched(step: int) -> Batch:
        batch = taken(step)
        seen.extend(int(s) for s in batch.samples)
        return batch

    trainer.loader.take = watched  # type: ignore[method-assign]
    batch = taken(0)
    trainer.gradient([(batch.images, batch.labels, batch.drawn)])
    gradient = torch.cat([parameter.grad.flatten() for parameter in trainer.network.parameters()])
    trainer.optimizer.zero_grad()
    losses = []
    for step in range(STEPS):
        trainer.step(step)
        losses.append(trainer.read_losses().loss)
    seen = gather_object(seen)
    expected = np.concatenate([trainer.loader.draw.step(step)[1] for step in range(STEPS)])
    torch.manual_seed(1)
    fixed = build_model(ModelConfig(name="unet", base_width=4, depth=2), 1, 5).eval()
    cases = [case.name for case in store.cases]
    result = Validator(store, cases, accelerator, config.optim).validate(fixed)
    if accelerator.is_main_process:
        facts = {
            "processes": accelerator.num_processes,
            "losses": losses,
            "gradient": gradient.tolist(),
            "each_once": sorted(seen) == sorted(expected),
        }
        print(json.dumps({**facts, "validation": asdict(result)}), flush=True)
