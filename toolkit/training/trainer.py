"""The state of one training on one process, and its step."""

import logging
import math
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as distributed
from accelerate import Accelerator

from attunet.config import ResolvedConfig
from attunet.device.memory import is_out_of_memory
from attunet.errors import InputError, NotFinite, RunError
from attunet.loading.augment import Augmenter
from attunet.loading.loader import Batch, Loader
from attunet.loading.resident import ResidentLoader
from attunet.losses import Loss, add_over_processes, labels_of_level, loss_of_levels, segmentation_sums
from attunet.models import SegmentationNetwork
from attunet.models.batch_norm_relu import synchronize_batch_norms
from attunet.models.network import LogitsOfLevels
from attunet.ops.memory_format import in_memory_format
from attunet.runs.checkpoint import TrainerState, optimizer_tensors
from attunet.training.optimization import (
    AveragedNetwork,
    class_weights,
    freeze,
    learning_rate,
    make_capturable,
    make_optimizer,
    set_learning_rate,
)
from attunet.training.progress.telemetry import Telemetry, training_flops
from attunet.training.step_graph import WARM_UP_STEPS, CudaGraphBackend, GraphBackend, Part, StepGraph, graph_obstacle

logger = logging.getLogger(__name__)


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


class Trainer:
    """Network, average, optimizer and data of one process. `step` never waits for the device; `read_losses` does.

    Args:
        network: the network to train, on the CPU; it is moved to the device.
        loader: the training data of this process.
        num_classes: number of classes, with the background.
        config: the resolved configuration.
        accelerator: device, precision and processes.
        carried: names of the parameters that start from another model, see `optim.init_lr_factor`.

    Raises:
        InputError: the batch is smaller than the number of processes times `optim.accumulate_steps`.

    Example:
        >>> trainer = Trainer(build_model(config.model, 1, 5), loader, 5, config, make_accelerator(config.run))
        >>> for step in range(trainer.total_steps):
        ...     trainer.step(step)
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        loader: Loader,
        num_classes: int,
        config: ResolvedConfig,
        accelerator: Accelerator,
        carried: Collection[str] = (),
    ) -> None:
        self.config, self.accelerator, self.loader = config, accelerator, loader
        optim, device = config.optim, accelerator.device
        self.batch_size, self.seed = optim.batch_size, config.run.seed
        assert loader.sampling.batch_size == self.batch_size, "the loader draws other batches"
        smallest = accelerator.num_processes * optim.accumulate_steps
        if self.batch_size < smallest:
            raise InputError(
                f"optim.batch_size: must be at least processes times optim.accumulate_steps ({smallest}), got "
                f"{self.batch_size}"
            )
        self.total_steps = math.ceil(optim.epochs * loader.num_samples / self.batch_size)
        self.class_weights = class_weights(optim, loader, num_classes)
        self.telemetry = Telemetry(accelerator, training_flops(network, loader.in_channels, loader.size))
        if config.run.activation_checkpointing:
            network.enable_activation_checkpointing()
        self._memory_format = torch.channels_last if config.run.channels_last else torch.contiguous_format
        # Torch's stubs lack it
        network = network.to(device=device, memory_format=self._memory_format)  # type: ignore[call-overload]
        self.network = network
        self.average = AveragedNetwork(network, optim.ema_decay)
        model: torch.nn.Module = network
        if config.model.deep_supervision:  # after the average was made, which does not need the heads
            network.supervise_coarse_levels()
            model = LogitsOfLevels(network).to(device=device, memory_format=self._memory_format)  # type: ignore[call-overload]
        if config.run.sync_batch_norm:  # after the average was made, which is evaluated in one process
            synchronize_batch_norms(network)
        frozen = freeze(network, optim.freeze)
        self.optimizer = make_optimizer(network, optim, carried)
        if config.run.compile:
            # One graph; the gradient reduction of networks this small hides anyway
            torch._dynamo.config.optimize_ddp = False
            model.compile()
        self._model, self._stepper = accelerator.prepare(model, self.optimizer)
        self._model.train()
        for module in frozen:
            module.eval()
        self._buffers = [b for b in self.network.buffers() if b.is_floating_point()]
        self.augmenter = Augmenter(config.augment, loader.size, device)
        self._sums = torch.zeros(5, device=device)
        self._steps_summed = self._steps_done = 0
        self._first_bad_step = torch.full((), -1, dtype=torch.int64, device=device)
        # Number of the step, for operations on the device
        self._number = torch.zeros((), dtype=torch.int64, device=device)
        self._graph = self._make_graph()

    def _make_graph(self, backend: GraphBackend | None = None) -> StepGraph | None:
        """Make the step a graph; None if that is impossible, and the reason is logged where a graph was expected."""
        obstacle = "" if backend else graph_obstacle(self.config, self.loader, self.accelerator.num_processes)
        if obstacle:
            if self.config.run.cuda_graph == "on" or self.loader.device.type == "cuda":
                logger.info(f"no CUDA graph: {obstacle}")
            return None
        assert isinstance(self.loader, ResidentLoader), "obstacles include other tiers"
        make_capturable(self.optimizer, self.loader.device)
        return StepGraph(self.loader, self.augmenter, self.config, self._train_on, backend or CudaGraphBackend())

    def step(self, number: int) -> None:
        """Train on this process's share of a global batch: forward, backward, update, average.

        Args:
            number: number of the step, from 0.

        Raises:
            RunError: the device has not enough memory, or the slices can no longer be read.
        """
        try:
            self._step(number)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise RunError(self._out_of_memory(number)) from None

    def _step(self, number: int) -> None:
        self.telemetry.mark("outside")
        self._number.fill_(number)
        set_learning_rate(self.optimizer, learning_rate(number, self.total_steps, self.config.optim))
        if self._graph is not None:
            self._run_graph(self._graph, number)
        else:
            self._run_eagerly(number)
        # Outside the graph: the decay changes, and torch has no multi-tensor lerp by a tensor
        self.average.update(number)
        self._steps_summed += 1
        self._steps_done = number + 1
        self.telemetry.mark("compute")

    def _run_graph(self, graph: StepGraph, number: int) -> None:
        graph.fill(number)
        self.telemetry.mark("data")
        try:
            graph.run()
        except RuntimeError as error:
            if (
                graph.is_captured
                or is_out_of_memory(error)
                or self.config.run.cuda_graph == "on"
                or "captur" not in str(error)
            ):
                raise
            logger.warning(f"no CUDA graph: the step cannot be captured: {str(error).partition(chr(10))[0]}")
            self._graph = None
            graph.close()
            self._stepper.zero_grad()
            self._run_eagerly(number)

    def _run_eagerly(self, number: int) -> None:
        batch = self.loader.take(number)
        self.telemetry.mark("data")
        parts = [self._augmented(part) for part in batch.split(self.config.optim.accumulate_steps)]
        del batch  # its memory is free for the step
        self.telemetry.mark("augment")
        self._train_on(parts)

    def _train_on(self, parts: list[Part]) -> None:
        """Run forward, backward and update on the parts of a batch. A CUDA graph captures it:
        the host reads nothing.
        """
        parts = [(in_memory_format(images, self._memory_format), labels, drawn) for images, labels, drawn in parts]
        loss = self._backward_in_parts(parts) if len(parts) > 1 else self._backward(parts[0])
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.optim.grad_clip_norm or math.inf)
        self._update(loss.total.detach(), norm)
        self._average_buffers()
        finite = torch.isfinite(norm)
        figures = [loss.total, loss.dice, loss.cross_entropy, torch.where(finite, norm, 0.0), finite.float()]
        self._sums += torch.stack(figures).detach()

    def _augmented(self, batch: Batch) -> Part:
        images, labels = self.augmenter(
            batch.images, batch.labels, seed=self.seed, epochs=batch.epochs, samples=batch.samples
        )
        return images, labels, batch.drawn

    def _forward(self, images: torch.Tensor, labels: torch.Tensor, drawn: torch.Tensor | None) -> torch.Tensor:
        """Compute the sums of the loss at every supervised level, `(L, 2 + 3 K)`."""
        logits = self._model(images)
        levels = logits if isinstance(logits, tuple) else (logits,)
        sums = [
            segmentation_sums(one, labels_of_level(labels, i), self.class_weights, drawn)
            for i, one in enumerate(levels)
        ]
        return torch.stack(sums)

    def _backward(self, part: Part) -> Loss:
        loss = loss_of_levels(add_over_processes(self._forward(*part)), self.config.optim)
        # DDP averages gradients; the loss is a sum
        self.accelerator.backward(loss.total * self.accelerator.num_processes)
        return loss

    def _backward_in_parts(self, parts: list[Part]) -> Loss:
        """Compute the same loss and gradient, one part's activations in memory at a time; a third more arithmetic.

        The loss is a function of sums over the global batch. The first pass computes the sums and the loss's derivative
        with respect to them; the second pass goes backward from each part's sums with these derivatives (the gradient
        cache of Gao et al. 2021).
        """
        buffers = list(self.network.buffers())
        with torch.no_grad():
            before = [buffer.clone() for buffer in buffers]
            sums = add_over_processes(torch.stack([self._forward(*part) for part in parts]).sum(0))
            for buffer, value in zip(buffers, before, strict=True):  # batch norm counts each part once
                buffer.copy_(value)
        loss = loss_of_levels(sums.requires_grad_(), self.config.optim)
        (derivatives,) = torch.autograd.grad(loss.total, sums)
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self._model):
                share = (self._forward(*part) * derivatives).sum()
                self.accelerator.backward(share * self.accelerator.num_processes)
        return loss

    def _update(self, loss: torch.Tensor, norm: torch.Tensor) -> None:
        # Fp16 gradients overflow now and then by design; the scaler skips such steps
        scaling = self.accelerator.scaler is not None
        bad = ~torch.isfinite(loss) if scaling else ~(torch.isfinite(loss) & torch.isfinite(norm))
        self._first_bad_step.copy_(torch.where(bad & (self._first_bad_step < 0), self._number, self._first_bad_step))
        if not scaling:
            # The fused optimizer leaves weights and moments alone where found_inf is 1: the skip happens on the device.
            self.optimizer.found_inf, self.optimizer.grad_scale = bad.float(), None  # type: ignore[attr-defined]
        self._stepper.step()
        self._stepper.zero_grad()

    def _out_of_memory(self, number: int) -> str:
        """Return the error message for a step that does not fit into memory."""
        device = "the GPU" if self.accelerator.device.type == "cuda" else "the host"
        slices = math.ceil(len(self.loader.draw.share(number)[1]) / self.config.optim.accumulate_steps)
        advice = ["a smaller optim.batch_size", "more optim.accumulate_steps"]
        if not self.config.run.activation_checkpointing:
            advice.append("run.activation_checkpointing=true")
        return (
            f"step {number}: {device} has not enough memory for {slices} slices at once; set {', '.join(advice[:-1])} "
            f"or {advice[-1]}"
        )

    def _average_buffers(self) -> None:
        """Average the batch-norm statistics over the processes, so that one checkpoint serves all of them."""
        if self.accelerator.num_processes > 1 and self._buffers:
            flat = torch.cat([b.flatten() for b in self._buffers])
            distributed.all_reduce(flat)
            flat /= self.accelerator.num_processes
            for buffer, mean in zip(self._buffers, torch.split(flat, [b.numel() for b in self._buffers]), strict=True):
                buffer.copy_(mean.view_as(buffer))

    def read_losses(self) -> LoggedLosses:
        """Return the means since the last call; waits for the device.

        Raises:
            NotFinite: a step's loss or gradient was not finite.
        """
        self.check_finite()
        loss, dice, cross_entropy, norm, finite_norms = self._sums.tolist()
        steps = max(1, self._steps_summed)
        self._sums.zero_()
        self._steps_summed = 0
        mean_norm = norm / finite_norms if finite_norms else None
        return LoggedLosses(
            loss / steps, dice / steps, cross_entropy / steps, mean_norm, float(self.optimizer.param_groups[0]["lr"])
        )

    @property
    def warm_up_steps(self) -> int:
        """Steps after which all steps take the same time."""
        return WARM_UP_STEPS + 1 if self._graph is not None else 2

    def forget_moments(self) -> None:
        """Set the optimizer back to its state before the first step."""
        self.optimizer.state.clear()
        if self._graph is not None:
            self._graph.reset()

    def close(self) -> None:
        """End background work."""
        if self._graph is not None:
            self._graph.close()

    def state(self) -> TrainerState:
        """Return the state that a checkpoint saves; waits for the device.

        Raises:
            NotFinite: a step's loss or gradient was not finite; such a state must never be saved.
        """
        self.check_finite()
        scaler = self.accelerator.scaler
        parts = {
            "model": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.network),
        }
        return TrainerState(
            self._steps_done == self.total_steps, parts, scaler.state_dict() if scaler is not None else None
        )

    def reset_sums(self) -> None:
        """Forget the losses, steps and speed so far, as before the first step."""
        self._sums.zero_()
        self._first_bad_step.fill_(-1)
        self._steps_summed = self._steps_done = 0
        self.telemetry.forget()

    def set_config(self, config: ResolvedConfig) -> None:
        """Replace the configuration by one with another number of epochs; only before the first step."""
        assert self._steps_done == 0
        self.config = config
        self.total_steps = math.ceil(config.optim.epochs * self.loader.num_samples / self.batch_size)

    def check_finite(self) -> None:
        """Raise NotFinite with the slices of the first step whose loss or gradient was not finite."""
        step = int(self._first_bad_step)
        if step >= 0:
            _, samples = self.loader.draw.step(step)
            names = ", ".join(self.loader.describe_sample(int(s)) for s in np.unique(samples))
            raise NotFinite(f"step {step}: loss or gradient is not finite; its slices: {names}")
