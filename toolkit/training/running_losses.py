"""Losses of the steps since the last line of the log, summed on the device."""

from dataclasses import dataclass

import torch

from attunet.losses import Loss


@dataclass
class LoggedLosses:
    """Means since the last line of the log.

    `lr` is the learning rate of the last step; `grad_norm` is the mean over steps with a finite norm, None without any.
    """

    loss: float
    dice_loss: float
    cross_entropy: float
    grad_norm: float | None
    lr: float


class RunningLosses:
    """Sums over steps. `add` and `note_bad_step` never wait for the device; a CUDA graph captures them."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(5, device=device)
        self.first_bad_step = torch.full((), -1, dtype=torch.int64, device=device)
        self.steps = 0  # counted on the host, since a graph replays device work alone

    def add(self, loss: Loss, norm: torch.Tensor) -> None:
        """Add a step; norm: of its gradient."""
        finite = torch.isfinite(norm)
        figures = [loss.total, loss.dice, loss.cross_entropy, torch.where(finite, norm, 0.0), finite.float()]
        self.sums += torch.stack(figures).detach()

    def note_bad_step(self, bad: torch.Tensor, number: torch.Tensor) -> None:
        """Keep the number of the first step for which `bad` is True."""
        self.first_bad_step.copy_(torch.where(bad & (self.first_bad_step < 0), number, self.first_bad_step))

    def read(self, lr: float) -> LoggedLosses:
        """Return the means since the last call; waits for the device."""
        loss, dice, cross_entropy, norm, finite_norms = self.sums.tolist()
        steps = max(1, self.steps)
        self.sums.zero_()
        self.steps = 0
        mean_norm = norm / finite_norms if finite_norms else None
        return LoggedLosses(loss / steps, dice / steps, cross_entropy / steps, mean_norm, lr)

    def reset(self) -> None:
        """Forget everything, as before the first step."""
        self.sums.zero_()
        self.first_bad_step.fill_(-1)
        self.steps = 0
