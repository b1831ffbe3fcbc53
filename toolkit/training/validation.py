"""Validation: each process counts voxels on its share of the cases; the gathered counts are divided at the end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from attunet.config import OptimConfig
from attunet.errors import InputError
from attunet.evaluate_case import evaluate_case, read_labelled_case
from attunet.losses import loss_of, segmentation_sums
from attunet.metrics.aggregate import nan_to_null, summarize
from attunet.metrics.overlap import confusion, dice_from_confusion
from attunet.metrics.results import MetricTable
from attunet.store import Store
from attunet.volumes.model import NetworkModel
from attunet.volumes.postprocess import postprocess
from attunet.volumes.slices import gather_context

BATCH_SIZE = 8


@dataclass(frozen=True)
class CaseCounts:
    """Counts of one case: the sums of the loss, and the confusion matrix `(K, K)` with the truth in rows."""

    case: str
    sums: np.ndarray
    confusion: np.ndarray


@dataclass(frozen=True)
class Validation:
    """Result of a validation: the mean loss, and the Dice of classes and cases."""

    loss: float
    dice: MetricTable


@dataclass(frozen=True)
class Validator:
    """The validation of one training; `class_weights` as in `BatchGradient`."""

    store: Store
    cases: Sequence[str]
    accelerator: Accelerator
    optim: OptimConfig
    class_weights: torch.Tensor | None = None

    def validate(self, network: nn.Module) -> Validation:
        """Compute the loss, and the Dice per case in 3D on the store's grid after the store's post-processing.

        All processes get the same. The network is on the device, in eval mode.
        """
        counts = self._over_cases(lambda case: self._count(network, case))
        sums = torch.from_numpy(np.sum([c.sums for c in counts], axis=0))
        return Validation(loss_of(sums, self.optim).total.item(), self._dice_table(counts))

    def validate_native(self, network: nn.Module) -> MetricTable:
        """Compute the Dice per case on the native grid, from the source files, as a user would get it.

        Raises:
            InputError: the source files are gone or have changed.
        """
        return self._dice_table(self._over_cases(lambda case: self._count_native(network, case)))

    def _count(self, network: nn.Module, case: str) -> CaseCounts:
        store, device, num_classes = self.store, self.accelerator.device, len(self.store.classes)
        images, labels, drawn = store.image(case), np.array(store.label(case)), store.drawn_classes(case)
        drawn_of_slice = None if drawn.all() else torch.from_numpy(drawn).to(device)
        sums, predicted = np.zeros(2 + 3 * num_classes), np.empty_like(labels)
        for start in range(0, len(images), BATCH_SIZE):
            window = np.arange(start, min(start + BATCH_SIZE, len(images)))
            batch = torch.from_numpy(gather_context(images, window, store.spec.context_slices)).to(device).float()
            truth = torch.from_numpy(labels[window]).to(device)
            with self.accelerator.autocast():
                logits = network(batch)
            drawn_here = None if drawn_of_slice is None else drawn_of_slice.expand(len(window), -1)
            sums += segmentation_sums(logits, truth, self.class_weights, drawn_here).double().cpu().numpy()
            predicted[window] = logits.argmax(1).to(torch.uint8).cpu().numpy()
        predicted = postprocess(predicted, num_classes, store.spacing(case), store.preprocessing.postprocessing)
        return CaseCounts(case, sums, confusion(np.where(drawn[predicted], predicted, 0), labels, num_classes))

    def _count_native(self, network: nn.Module, case: str) -> CaseCounts:
        def logits_of(slices: np.ndarray) -> np.ndarray:
            with self.accelerator.autocast():
                return np.asarray(network(torch.from_numpy(slices).to(self.accelerator.device)).float().cpu())

        spec, postprocessing = self.store.spec, self.store.preprocessing.postprocessing
        model = NetworkModel("validation", spec, self.store.classes, logits_of, postprocessing)
        evaluation = evaluate_case(model, read_labelled_case(self.store, case), batch_size=BATCH_SIZE)
        return CaseCounts(case, np.zeros(0), evaluation.confusion)

    def _over_cases(self, count: Callable[[str], CaseCounts]) -> list[CaseCounts]:
        """Count this process's share of the cases and gather the counts of all; all processes return, or all raise."""
        here: list[CaseCounts | str] = []
        with torch.inference_mode():
            for case in self.cases[self.accelerator.process_index :: self.accelerator.num_processes]:
                try:
                    here.append(count(case))
                except InputError as error:  # every process must reach the gathering below
                    here.append(str(error))
        counts = {}
        for one in gather_object(here):
            if isinstance(one, str):
                raise InputError(one)
            assert one.case not in counts, "each case must be counted once"
            counts[one.case] = one
        return [counts[case] for case in self.cases]

    def _dice_table(self, counts: Sequence[CaseCounts]) -> MetricTable:
        """Compute the Dice per foreground class and case; null if neither truth nor prediction has the class."""
        dice = {c.case: dice_from_confusion(c.confusion)[1:] for c in counts}
        return nan_to_null(summarize(dice, self.store.classes.foreground))
