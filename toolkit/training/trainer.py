"""What one training step touches, and the step itself."""

import math
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as distributed
from accelerate import Accelerator

from attunet.config import ResolvedConfig
from attunet.device.memory import forget, is_out_of_memory, largest_that_fits
from attunet.errors import InputError, NotFinite, RunError
from attunet.loading.augment import Augmenter
from attunet.loading.loader import Batch, Loader
from attunet.loading.order import Draw
from attunet.losses import Loss, add_over_processes, loss_from_sums, segmentation_sums
from attunet.models import SegmentationNetwork
from attunet.models.batch_norm_relu import synchronize_batch_norms
from attunet.runs.checkpoint import TrainerState, optimizer_tensors
from attunet.training.optimization import AveragedNetwork, _class_weights, _make_optimizer, learning_rate
from attunet.training.progress.telemetry import Telemetry, training_flops


@dataclass
class LoggedLosses:
    """Means since the last line of the log; `lr` is the last step's."""

    loss: float
    dice_loss: float
    cross_entropy: float
    grad_norm: float
    lr: float


class Trainee:
    """Network, average, optimizer and data of one process. Nothing in `step` waits for the device; `read_losses` does."""

    def __init__(
        self, network: SegmentationNetwork, loader: Loader, num_classes: int, config: ResolvedConfig, accelerator: Accelerator
    ) -> None:
        self.config, self.accelerator, self.loader = config, accelerator, loader
        optim, device = config.optim, accelerator.device
        self.batch_size, self.seed = optim.batch_size, config.run.seed
        least = accelerator.num_processes * optim.accumulate_steps
        if self.batch_size < least:
            raise InputError(f"optim.batch_size: must be at least processes times optim.accumulate_steps ({least}), got {self.batch_size}")
        self.draw = Draw(loader.order(self.seed), self.batch_size, accelerator.process_index, accelerator.num_processes)
        loader.follow(self.draw)
        self.total_steps = math.ceil(optim.epochs * loader.num_samples / self.batch_size)
        self.class_weights = _class_weights(optim, loader, num_classes, device)
        self.telemetry = Telemetry(accelerator, training_flops(network, loader.in_channels, loader.size))
        if config.run.activation_checkpointing:
            network.enable_activation_checkpointing()
        self._layout = torch.channels_last if config.run.channels_last else torch.contiguous_format
        network = network.to(device=device, memory_format=self._layout)  # type: ignore[call-overload]  # torch's stubs lack it
        self.network = network
        self.average = AveragedNetwork(network, optim.ema_decay)
        if config.run.sync_batch_norm:  # after the average was made, which is evaluated in one process
            synchronize_batch_norms(network)
        self.optimizer = _make_optimizer(network, optim)
        if config.run.compile:
            torch._dynamo.config.optimize_ddp = False  # one graph; the gradient reduction of networks this small hides anyway
            network.compile()
        self._model, self._stepper = accelerator.prepare(network, self.optimizer)
        self._model.train()
        self._buffers = [b for b in network.buffers() if b.is_floating_point()]
        self.augmenter = Augmenter(config.augment, loader.size, device)
        self._sums = torch.zeros(4, device=device)
        self._steps_summed = self._steps_done = 0
        self._first_bad_step = torch.full((), -1, dtype=torch.int64, device=device)

    def step(self, number: int) -> None:
        """Step `number` (from 0): this process's share of the global batch, forward, backward, update, average.

        Raises RunError when memory does not suffice, naming the batch that fits.
        """
        try:
            self._step(number)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            forget(error)
            message = self._advice(number, str(error).partition("\n")[0])
        else:
            return
        raise RunError(message)

    def _step(self, number: int) -> None:
        self.telemetry.mark("outside")
        batch = self.loader.take(number)
        self.telemetry.mark("data")
        parts = [self._augmented(part) for part in batch.split(self.config.optim.accumulate_steps)]
        del batch  # its memory is free for the step
        self.telemetry.mark("augment")
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(number, self.total_steps, self.config.optim)
        loss = self._backward_in_parts(parts) if len(parts) > 1 else self._backward(*parts[0])
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.optim.grad_clip_norm or math.inf)
        self._update(number, loss.total.detach(), norm)
        self._average_buffers()
        self.average.update(number)
        self._sums += torch.stack([loss.total, loss.dice, loss.cross_entropy, norm]).detach()
        self._steps_summed += 1
        self._steps_done = number + 1
        self.telemetry.mark("compute")

    def _augmented(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = self.augmenter(batch.images, batch.labels, seed=self.seed, epochs=batch.epochs, samples=batch.samples)
        return images.contiguous(memory_format=self._layout), labels

    def _backward(self, images: torch.Tensor, labels: torch.Tensor) -> Loss:
        loss = self._loss(add_over_processes(segmentation_sums(self._model(images), labels, self.class_weights)))
        self.accelerator.backward(loss.total * self.accelerator.num_processes)  # DDP averages gradients; the loss is a sum
        return loss

    def _backward_in_parts(self, parts: list[tuple[torch.Tensor, torch.Tensor]]) -> Loss:
        """The same loss and gradient with the activations of one part in memory at a time; a third more arithmetic.

        The loss is a function of sums over the global batch. The first pass computes the sums, and with them the loss's slope in each;
        the second pass goes backward from each part's sums along those slopes (as the gradient cache of Gao et al. 2021).
        """
        buffers = list(self.network.buffers())
        with torch.no_grad():
            before = [buffer.clone() for buffer in buffers]
            of_parts = [segmentation_sums(self._model(image), label, self.class_weights) for image, label in parts]
            sums = add_over_processes(torch.stack(of_parts).sum(0))
            for buffer, value in zip(buffers, before, strict=True):  # batch norm meets each part once
                buffer.copy_(value)
        loss = self._loss(sums.requires_grad_())
        (slopes,) = torch.autograd.grad(loss.total, sums)
        for part, (image, label) in enumerate(parts):
            last = part == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self._model):
                along = (segmentation_sums(self._model(image), label, self.class_weights) * slopes).sum()
                self.accelerator.backward(along * self.accelerator.num_processes)
        return loss

    def _loss(self, sums: torch.Tensor) -> Loss:
        optim = self.config.optim
        return loss_from_sums(sums, dice_weight=optim.dice_weight, cross_entropy_weight=optim.cross_entropy_weight)

    def _update(self, number: int, loss: torch.Tensor, norm: torch.Tensor) -> None:
        scaling = self.accelerator.scaler is not None  # fp16: gradients overflow now and then by design, the scaler skips those
        bad = ~torch.isfinite(loss) if scaling else ~(torch.isfinite(loss) & torch.isfinite(norm))
        self._first_bad_step = torch.where(bad & (self._first_bad_step < 0), number, self._first_bad_step)
        if not scaling:
            # The fused optimizer leaves weights and moments alone where found_inf is 1: the skip happens on the device.
            self.optimizer.found_inf, self.optimizer.grad_scale = bad.float(), None  # type: ignore[attr-defined]
        self._stepper.step()
        self._stepper.zero_grad()

    def _advice(self, number: int, error: str) -> str:
        """What to do about a step that did not fit into memory."""
        self._stepper.zero_grad()
        world, share = self.accelerator.num_processes, len(self.draw.share(number)[1])
        tried = math.ceil(share / self.config.optim.accumulate_steps)
        fits = largest_that_fits(self._rehearse, tried)
        device = "the GPU" if self.accelerator.device.type == "cuda" else "the host"
        told = f"step {number}: {device} has not enough memory for {tried} slices at once"
        otherwise = "" if self.config.run.activation_checkpointing else ", or run.activation_checkpointing=true, which needs less for each"
        if fits:
            parts = math.ceil(share / fits)
            in_parts = f"optim.accumulate_steps={parts}, or " if parts * world <= self.batch_size else ""
            batch_size = fits * world * self.config.optim.accumulate_steps
            return f"{told}; {fits} fit: set {in_parts}optim.batch_size={batch_size}{otherwise}"
        return f"{told}, nor for one: take a smaller model.base_width or data.size{otherwise} ({error})"

    def _rehearse(self, count: int) -> None:
        """What a step with `count` slices needs, on this process alone and without an update."""
        shape, device = (count, self.loader.in_channels, *self.loader.size), self.accelerator.device
        images, labels = torch.zeros(shape, device=device), torch.zeros((count, *shape[2:]), dtype=torch.uint8, device=device)
        numbers = np.zeros(count, np.int64)
        images, labels = self._augmented(Batch(numbers, numbers, images, labels))
        self.network.eval()  # the training ends after this; synchronised batch norm would wait for processes that do not rehearse
        parameters = list(self.network.parameters())
        moments = [] if self.optimizer.state else [torch.empty_like(p) for p in parameters for _ in range(2)]
        with self.accelerator.autocast():
            logits = self.network.forward(images)
        loss = loss_from_sums(segmentation_sums(logits, labels, self.class_weights), dice_weight=1.0, cross_entropy_weight=1.0)
        gradients = torch.autograd.grad(loss.total, parameters)  # not backward(): other processes wait for no reduction
        del moments, gradients

    def _average_buffers(self) -> None:
        """Every process keeps the same batch-norm statistics, so that a checkpoint of one is the checkpoint of all."""
        if self.accelerator.num_processes > 1 and self._buffers:
            flat = torch.cat([b.flatten() for b in self._buffers])
            distributed.all_reduce(flat)
            flat /= self.accelerator.num_processes
            for buffer, mean in zip(self._buffers, flat.split([b.numel() for b in self._buffers]), strict=True):
                buffer.copy_(mean.view_as(buffer))

    def read_losses(self) -> LoggedLosses:
        """Means since the last call; waits for the device. Raises RunError when a step's loss or gradient was not finite."""
        self.check_finite()
        mean = (self._sums / max(1, self._steps_summed)).tolist()
        self._sums.zero_()
        self._steps_summed = 0
        loss, dice, cross_entropy, norm = mean
        return LoggedLosses(loss, dice, cross_entropy, norm, self.optimizer.param_groups[0]["lr"])

    def state(self) -> TrainerState:
        """What a checkpoint saves. Waits for the device and raises NotFinite: a step that was not finite must never be saved."""
        self.check_finite()
        scaler = self.accelerator.scaler
        parts = {
            "model": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.network),
        }
        return TrainerState(self._steps_done == self.total_steps, parts, scaler.state_dict() if scaler is not None else None)

    def check_finite(self) -> None:
        step = int(self._first_bad_step)
        if step >= 0:
            _, samples = self.draw.step(step)
            names = ", ".join(self.loader.describe(int(s)) for s in np.unique(samples))
            raise NotFinite(f"step {step}: loss or gradient is not finite; its slices: {names}")
