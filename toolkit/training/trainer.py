"""The state of one training on one process, and its step."""

import dataclasses
import logging
import math
from collections.abc import Collection

import torch
from accelerate import Accelerator

from attunet.config import ResolvedConfig
from attunet.device.accelerator import average_over_processes
from attunet.device.memory import is_out_of_memory
from attunet.errors import InputError, NotFinite, RunError
from attunet.loading.augment import Augmenter
from attunet.loading.loader import Batch, Loader
from attunet.loading.resident import ResidentLoader
from attunet.models import SegmentationNetwork
from attunet.ops.memory_format import in_memory_format
from attunet.runs.checkpoint import TrainerState, optimizer_tensors
from attunet.training.batch_gradient import BatchGradient, Part
from attunet.training.optimization import (
    class_weights,
    freeze,
    learning_rate,
    make_capturable,
    make_optimizer,
    memory_format,
    place_network,
    set_learning_rate,
)
from attunet.training.progress.telemetry import Telemetry, training_flops
from attunet.training.running_losses import LoggedLosses, RunningLosses
from attunet.training.step_graph import WARM_UP_STEPS, StepGraph, capture_cuda_graph, graph_obstacle

logger = logging.getLogger(__name__)


class Trainer:
    """Network, average, optimizer and data of one process. `step` never waits for the device; `read_losses` does.

    Args:
        network: the network to train, on the CPU; it is moved to the device.
        carried: names of the parameters that start from another model, see `optim.freeze` and `init_lr_factor`.

    Raises:
        InputError: the batch is smaller than the number of processes times `optim.accumulate_steps`, or a part is to be
            frozen that starts from no other model.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        loader: Loader,
        config: ResolvedConfig,
        accelerator: Accelerator,
        carried: Collection[str] = (),
    ) -> None:
        self.config, self.accelerator, self.loader = config, accelerator, loader
        optim, device = config.optim, accelerator.device
        self.batch_size = optim.batch_size
        assert loader.sampling.batch_size == self.batch_size, "the loader draws other batches"
        if self.batch_size < (least := accelerator.num_processes * optim.accumulate_steps):
            rule = f"must be at least processes times optim.accumulate_steps ({least})"
            raise InputError(f"optim.batch_size: {rule}, got {self.batch_size}")
        self.telemetry = Telemetry(accelerator, training_flops(network, loader.in_channels, loader.size))
        self.network = network
        self._memory_format = memory_format(config.run)
        model, self.average = place_network(network, config, device)
        frozen = freeze(network, optim.freeze, carried)
        self.optimizer = make_optimizer(network, optim, carried)
        if config.run.compile:
            # One graph; the gradient reduction of networks this small hides anyway
            torch._dynamo.config.optimize_ddp = False
            model.compile()
        model, self._stepper = accelerator.prepare(model, self.optimizer)
        model.train()
        for module in frozen:
            module.eval()
        self.gradient = BatchGradient(model, network, optim, class_weights(optim, loader), accelerator)
        self._buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        self.augmenter = Augmenter(config.augment, loader.size, device)
        self.losses = RunningLosses(device)
        self._number = torch.zeros((), dtype=torch.int64, device=device)  # of the step, for operations on the device
        self._graph = self._make_graph()

    def _make_graph(self) -> StepGraph | None:
        """Make the step a graph; None if that is impossible, and the reason is logged where a graph was expected."""
        if obstacle := graph_obstacle(self.config, self.loader, self.accelerator.num_processes):
            if self.config.run.cuda_graph == "on" or self.loader.device.type == "cuda":
                logger.info(f"no CUDA graph: {obstacle}")
            return None
        assert isinstance(self.loader, ResidentLoader), "obstacles include other tiers"
        make_capturable(self.optimizer, self.loader.device)
        return StepGraph(self.loader, self.augmenter, self.config, self._train_on, capture_cuda_graph)

    @property
    def total_steps(self) -> int:
        return math.ceil(self.config.optim.epochs * self.loader.num_samples / self.batch_size)

    def step(self, number: int) -> None:
        """Train on this process's share of global batch `number`, from 0: forward, backward, update, average.

        Raises:
            RunError: the device has not enough memory, or the slices can no longer be read.
        """
        self.telemetry.mark("outside")
        try:
            self._number.fill_(number)
            set_learning_rate(self.optimizer, learning_rate(number, self.total_steps, self.config.optim))
            if self._graph is not None:
                self._graph.fill(number)
                self.telemetry.mark("data")
                if not self._graph.run():
                    self._graph = None
                    self._stepper.zero_grad()
            if self._graph is None:
                self._run_eagerly(number)
            # Outside the graph: the decay changes, and torch has no multi-tensor lerp by a tensor
            self.average.update(number)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise RunError(self._out_of_memory(number)) from None
        self.losses.steps += 1
        self.telemetry.new_slices += self.batch_size
        self.telemetry.mark("compute")

    def _run_eagerly(self, number: int) -> None:
        batch = self.loader.take(number)
        self.telemetry.mark("data")
        parts = [self._augmented(part) for part in batch.split(self.config.optim.accumulate_steps)]
        del batch  # its memory is free for the step
        self.telemetry.mark("augment")
        self._train_on(parts)

    def _augmented(self, batch: Batch) -> Part:
        images, labels = self.augmenter(
            batch.images, batch.labels, seed=self.config.run.seed, epochs=batch.epochs, samples=batch.samples
        )
        return images, labels, batch.drawn

    def _train_on(self, parts: list[Part]) -> None:
        """Run forward, backward and update on a batch's parts. A CUDA graph captures it: the host reads nothing."""
        parts = [(in_memory_format(images, self._memory_format), labels, drawn) for images, labels, drawn in parts]
        loss = self.gradient(parts)
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.optim.grad_clip_norm or math.inf)
        # Fp16 gradients overflow now and then by design; the scaler skips such steps
        scaling = self.accelerator.scaler is not None
        total = loss.total.detach()
        bad = ~torch.isfinite(total) if scaling else ~(torch.isfinite(total) & torch.isfinite(norm))
        self.losses.note_bad_step(bad, self._number)
        if not scaling:
            # The fused optimizer leaves weights and moments alone where found_inf is 1: the skip happens on the device.
            self.optimizer.found_inf, self.optimizer.grad_scale = bad.float(), None  # type: ignore[attr-defined]
        self._stepper.step()
        self._stepper.zero_grad()
        average_over_processes(self._buffers)  # batch-norm statistics: one checkpoint serves all processes
        self.losses.add(loss, norm)

    def _out_of_memory(self, number: int) -> str:
        device = "the GPU" if self.accelerator.device.type == "cuda" else "the host"
        slices = math.ceil(len(self.loader.draw.share(number)[1]) / self.config.optim.accumulate_steps)
        advice = ["a smaller optim.batch_size", "more optim.accumulate_steps"]
        if not self.config.run.activation_checkpointing:
            advice.append("run.activation_checkpointing=true")
        return (
            f"step {number}: {device} has not enough memory for {slices} slices at once; set {', '.join(advice[:-1])} "
            f"or {advice[-1]}"
        )

    def read_losses(self) -> LoggedLosses:
        """Return the means since the last call; waits for the device.

        Raises:
            NotFinite: a step's loss or gradient was not finite.
        """
        self._check_finite()
        return self.losses.read(float(self.optimizer.param_groups[0]["lr"]))

    def state(self) -> TrainerState:
        """Return the state that a checkpoint saves; waits for the device.

        Raises:
            NotFinite: a step's loss or gradient was not finite; such a state must never be saved.
        """
        self._check_finite()
        scaler = self.accelerator.scaler
        parts = {
            "model": self.network.state_dict(),
            "average": self.average.network.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.network),
        }
        return TrainerState(parts, scaler.state_dict() if scaler is not None else None)

    def _check_finite(self) -> None:
        """Raise NotFinite with the slices of the first step whose loss or gradient was not finite."""
        step = int(self.losses.first_bad_step)
        if step >= 0:
            _, samples = self.loader.draw.step(step)
            slices = self.loader.describe_samples(samples)
            raise NotFinite(f"step {step}: loss or gradient is not finite; its slices: {slices}")

    @property
    def warm_up_steps(self) -> int:
        """Steps after which all steps take the same time."""
        return WARM_UP_STEPS + 1 if self._graph is not None else 2

    def forget_steps(self) -> None:
        """Reset the optimizer, the losses and the speed to their state before the first step; the weights stay."""
        self.optimizer.state.clear()
        if self._graph is not None:
            self._graph.reset()
        self.losses.reset()
        self.telemetry.forget()

    def set_total_steps(self, steps: int, *, warmup: int | None = None) -> None:
        """Set `optim.epochs` so that the training has exactly this number of steps, and `optim.warmup_fraction` so that
        the learning rate rises for `warmup` of them; None keeps the fraction.
        """
        optim = self.config.optim
        fraction = optim.warmup_fraction if warmup is None else warmup / steps
        epochs = (steps - 0.5) * self.batch_size / self.loader.num_samples
        optim = dataclasses.replace(optim, epochs=epochs, warmup_fraction=fraction)
        self.config = dataclasses.replace(self.config, optim=optim)

    def set_validation_interval(self, steps: int) -> None:
        """Set `run.validate_every_epochs` to a number of steps."""
        epochs = steps * self.batch_size / self.loader.num_samples
        run = dataclasses.replace(self.config.run, validate_every_epochs=epochs)
        self.config = dataclasses.replace(self.config, run=run)

    def close(self) -> None:
        if self._graph is not None:
            self._graph.close()
