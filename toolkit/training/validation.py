"""Validation: counts per case, gathered by name, divided at the end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from attunet.classes import Classes
from attunet.config import OptimConfig
from attunet.errors import InputError
from attunet.losses import loss_from_sums, segmentation_sums
from attunet.metrics.overlap import confusion, dice_from_confusion
from attunet.store import Store
from attunet.volumes.postprocess import postprocess
from attunet.volumes.predict import predict_volume
from attunet.volumes.slices import gather_context

BATCH_SIZE = 8


@dataclass(frozen=True)
class CaseCounts:
    """What one case contributes: the loss sums and the confusion matrix `(K, K)`, rows the truth."""

    case: str
    sums: np.ndarray
    confusion: np.ndarray


def validate(network: nn.Module, store: Store, cases: Sequence[str], accelerator: Accelerator, optim: OptimConfig) -> dict[str, Any]:
    """Loss and Dice per case in 3D on the store's grid; each process takes a share of the cases, every process gets the result.

    The label maps that Dice is of are finished as the store says (`data.largest_component` and what belongs to it), as a user's are.
    """
    num_classes = len(store.classes)

    def count(case: str) -> CaseCounts:
        images, labels = store.image(case), np.array(store.label(case))
        sums, found = np.zeros(2 + 3 * num_classes), np.empty_like(labels)
        for start in range(0, len(images), BATCH_SIZE):
            window = np.arange(start, min(start + BATCH_SIZE, len(images)))
            batch = torch.from_numpy(gather_context(images, window, store.spec.context_slices)).to(accelerator.device).float()
            truth = torch.from_numpy(labels[window]).to(accelerator.device)
            with accelerator.autocast():
                logits = network(batch)
            sums += segmentation_sums(logits, truth).double().cpu().numpy()
            found[window] = logits.argmax(1).to(torch.uint8).cpu().numpy()
        found = postprocess(found, num_classes, store.spacing(case), store.preprocessing.postprocessing)
        return CaseCounts(case, sums, confusion(found, labels, num_classes))

    counts = _over_cases(count, cases, accelerator)
    total = torch.from_numpy(sum((c.sums for c in counts), np.zeros(2 + 3 * num_classes)))
    loss = loss_from_sums(total, dice_weight=optim.dice_weight, cross_entropy_weight=optim.cross_entropy_weight)
    return {"loss": loss.total.item(), "dice": dice_table({c.case: c.confusion for c in counts}, store.classes)}


def validate_native(network: nn.Module, store: Store, cases: Sequence[str], accelerator: Accelerator) -> dict[str, Any]:
    """Dice per case as a user would get it: from the source files, on the native grid. Raises InputError when they are gone."""

    def run(slices: np.ndarray) -> np.ndarray:
        with accelerator.autocast():
            logits: np.ndarray = network(torch.from_numpy(slices).to(accelerator.device)).float().cpu().numpy()
        return logits

    def count(case: str) -> CaseCounts:
        volume, truth = store.read_source(case)
        assert truth is not None
        indices = predict_volume(run, volume, store.spec, batch_size=BATCH_SIZE, postprocessing=store.preprocessing.postprocessing)
        return CaseCounts(case, np.zeros(0), confusion(indices, truth, len(store.classes)))

    return dice_table({c.case: c.confusion for c in _over_cases(count, cases, accelerator)}, store.classes)


def _over_cases(count: Callable[[str], CaseCounts], cases: Sequence[str], accelerator: Accelerator) -> list[CaseCounts]:
    mine: list[CaseCounts | str] = []
    with torch.inference_mode():
        for case in cases[accelerator.process_index :: accelerator.num_processes]:
            try:
                mine.append(count(case))
            except InputError as error:  # every process must reach the gathering below, then all raise alike
                mine.append(str(error))
    everyone = gather_object(mine) if accelerator.num_processes > 1 else mine
    if failures := [text for text in everyone if isinstance(text, str)]:
        raise InputError(failures[0])
    counts = [c for c in everyone if isinstance(c, CaseCounts)]
    assert sorted(c.case for c in counts) == sorted(cases), "validation must see each case once"
    return sorted(counts, key=lambda c: cases.index(c.case))


def dice_table(matrices: dict[str, np.ndarray], classes: Classes) -> dict[str, Any]:
    """Dice of each foreground class and case from confusion matrices; `mean` is over classes per case, then over cases.

    A class that is neither in the truth nor in the prediction of a case has no Dice there (null) and counts in no mean.
    """
    dice = np.array([dice_from_confusion(matrix)[1:] for matrix in matrices.values()])  # (cases, classes)

    def number(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    def mean(values: np.ndarray) -> float:
        known = values[~np.isnan(values)]
        return float(known.mean()) if len(known) else float("nan")

    return {
        "mean": number(mean(np.array([mean(row) for row in dice]))),
        "per_class": {name: number(mean(dice[:, i])) for i, name in enumerate(classes.foreground)},
        "per_case": {
            case: {n: number(v) for n, v in zip(classes.foreground, row, strict=True)} for case, row in zip(matrices, dice, strict=True)
        },
    }
