"""The loss of a batch and its gradient, computed at once or in parts."""

from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import nn

from attunet.config import OptimConfig
from attunet.losses import Loss, add_over_processes, labels_of_level, loss_of_levels, segmentation_sums

# Images (N, C, H, W) float32, labels (N, H, W) uint8 and drawn classes (N, K) bool, None if all were drawn.
Part = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


class BatchGradient:
    """Forward and backward pass over the parts of a batch. Nothing here waits for the device.

    Args:
        model: `network` as Accelerate has prepared it; gives logits, or the logits of all levels.
        class_weights: weights `(K,)` of the classes in the cross entropy; None for equal weights.
    """

    def __init__(
        self,
        model: nn.Module,
        network: nn.Module,
        optim: OptimConfig,
        class_weights: torch.Tensor | None,
        accelerator: Accelerator,
    ) -> None:
        self.class_weights = class_weights
        self._model, self._network, self._optim, self._accelerator = model, network, optim, accelerator

    def __call__(self, parts: list[Part]) -> Loss:
        """Add the gradient of the batch to the parameters and return its loss over all processes."""
        if len(parts) > 1:
            return self._in_parts(parts)
        loss = loss_of_levels(add_over_processes(self.sums(*parts[0])), self._optim)
        self._backward(loss.total)
        return loss

    def sums(self, images: torch.Tensor, labels: torch.Tensor, drawn: torch.Tensor | None) -> torch.Tensor:
        """Compute the sums of the loss at every supervised level, `(L, 2 + 3 K)`, of this process's slices."""
        logits = self._model(images)
        levels = logits if isinstance(logits, tuple) else (logits,)
        return torch.stack(
            [
                segmentation_sums(one, labels_of_level(labels, i), self.class_weights, drawn)
                for i, one in enumerate(levels)
            ]
        )

    def _in_parts(self, parts: list[Part]) -> Loss:
        """Compute the same loss and gradient, one part's activations in memory at a time; a third more arithmetic.

        The loss is a function of sums over the global batch. The first pass computes the sums and the loss's derivative
        with respect to them; the second pass goes backward from each part's sums with these derivatives (the gradient
        cache of Gao et al. 2021).
        """
        buffers = list(self._network.buffers())
        with torch.no_grad():
            before = [buffer.clone() for buffer in buffers]
            sums = add_over_processes(torch.stack([self.sums(*part) for part in parts]).sum(0))
            for buffer, value in zip(buffers, before, strict=True):  # batch norm counts each part once
                buffer.copy_(value)
        loss = loss_of_levels(sums.requires_grad_(), self._optim)
        (derivatives,) = torch.autograd.grad(loss.total, sums)
        for index, part in enumerate(parts):
            is_last = index == len(parts) - 1
            with nullcontext() if is_last else self._accelerator.no_sync(self._model):
                self._backward((self.sums(*part) * derivatives).sum())
        return loss

    def _backward(self, total: torch.Tensor) -> None:
        # DDP averages gradients; the loss is a sum
        self._accelerator.backward(total * self._accelerator.num_processes)
