"""The training step as one CUDA graph: captured once, then replayed, so that the host only sends each step's inputs.

A step of the 64-wide network at batch 16 is some 1,500 kernels, which take the host longer to queue than the device to
run. The inputs of a step (sample numbers, augmentation parameters, learning rate) lie in buffers that never move. A
thread draws the next step's inputs into pinned memory while the device computes. `torch.cuda.make_graphed_callables`
would capture the network alone.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch

from attunet.config import ResolvedConfig
from attunet.device.memory import is_out_of_memory
from attunet.loading.augment import Augmenter, Parameters, draw_parameters
from attunet.loading.loader import Loader
from attunet.loading.resident import ResidentLoader
from attunet.training.batch_gradient import Part

logger = logging.getLogger(__name__)

Inputs = tuple[torch.Tensor, Parameters | None]  # sample numbers (N,) int64 and augmentation parameters of a step
WARM_UP_STEPS = 3  # uncaptured: libraries choose algorithms and kernels are compiled


class GraphBackend(Protocol):
    """Interface that captures a function of fixed buffers: CUDA graphs, or a recorder of operators in tests."""

    def capture(self, function: Callable[[], None]) -> Callable[[], object]:
        """Record the operations of `function`, which need not run; return a call that runs them on the same memory."""


class CudaGraphBackend:
    """CUDA graphs of the current device."""

    def capture(self, function: Callable[[], None]) -> Callable[[], object]:
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # the drawing thread may pin memory meanwhile
            function()
        return graph.replay


def graph_obstacle(config: ResolvedConfig, loader: Loader, processes: int) -> str:
    """Return the reason why the step cannot be a CUDA graph; an empty text if it can.

    Args:
        config: the configuration of the training.
        loader: the training data, with their device and tier.
        processes: number of processes.
    """
    if config.run.cuda_graph == "off":
        return "run.cuda_graph is off"
    if loader.device.type != "cuda":
        return f"the training runs on {loader.device.type}"
    if loader.tier != "resident":
        return "the slices are streamed from the store"
    if processes > 1:
        return f"{processes} processes reduce their gradients outside of a graph"
    if config.run.mixed_precision == "fp16":
        return "fp16 scales its loss by what the host reads"
    return ""


class StepInputs:
    """The inputs of a step in device buffers that every step fills again."""

    def __init__(self, samples: torch.Tensor, parameters: Parameters | None, device: torch.device) -> None:
        self.samples = samples.to(device, copy=True)
        self.parameters = parameters and parameters.map(lambda value: value.to(device, copy=True))

    def fill(self, samples: torch.Tensor, parameters: Parameters | None) -> None:
        """Copy the inputs of another step into the buffers, without waiting for the device."""
        self.samples.copy_(samples, non_blocking=True)
        if self.parameters is not None and parameters is not None:
            self.parameters.keys.copy_(parameters.keys, non_blocking=True)
            for name, buffer in self.parameters.values.items():
                buffer.copy_(parameters.values[name], non_blocking=True)

    def split(self, parts: int) -> list[Inputs]:
        """Return views of the buffers for `parts` parts of the batch, whose sizes differ by at most one."""
        samples = self.samples.tensor_split(parts)
        if self.parameters is None:
            return [(part, None) for part in samples]
        return list(zip(samples, self.parameters.split(parts), strict=True))


class StepGraph:
    """The step of a training as a graph; the first `WARM_UP_STEPS` steps run uncaptured.

    Args:
        loader: the slices, on the device.
        augmenter: applies the augmentation parameters of a step.
        config: the configuration of the training.
        train: function that trains on the parts of a batch.
        backend: captures the step.

    Example:
        >>> augmenter = Augmenter(config.augment, loader.size, loader.device)
        >>> graph = StepGraph(loader, augmenter, config, train, CudaGraphBackend())
        >>> graph.fill(0)
        >>> graph.run()
    """

    def __init__(
        self,
        loader: ResidentLoader,
        augmenter: Augmenter,
        config: ResolvedConfig,
        train: Callable[[list[Part]], None],
        backend: GraphBackend,
    ) -> None:
        self._loader, self._augmenter, self._config = loader, augmenter, config
        self._train, self._backend = train, backend
        self._inputs: StepInputs | None = None
        self._replay: Callable[[], object] | None = None
        self._steps_run = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="step inputs")
        self._drawn: tuple[int, Future[Inputs]] | None = None

    @property
    def is_captured(self) -> bool:
        return self._replay is not None

    def fill(self, number: int) -> None:
        """Put the inputs of step `number` into the buffers and start to draw the inputs of the next step."""
        if self._drawn is None or self._drawn[0] != number:
            self._drawn = number, self._thread.submit(self._draw, number)
        samples, parameters = self._drawn[1].result()
        self._drawn = number + 1, self._thread.submit(self._draw, number + 1)
        if self._inputs is None:
            self._inputs = StepInputs(samples, parameters, self._loader.device)
        else:
            self._inputs.fill(samples, parameters)

    def run(self) -> bool:
        """Run the step whose inputs are in the buffers.

        Returns:
            True; False, with a warning in the log, if the step cannot be captured and was not run.

        Raises:
            RuntimeError: the step failed, or cannot be captured and `run.cuda_graph` is "on".
        """
        self._steps_run += 1
        if self._replay is None and self._steps_run <= WARM_UP_STEPS:
            self._body()
            return True
        try:
            self._replay = self._replay or self._backend.capture(self._body)
        except RuntimeError as error:
            if self._config.run.cuda_graph == "on" or is_out_of_memory(error) or "captur" not in str(error):
                raise
            logger.warning(f"no CUDA graph: the step cannot be captured: {str(error).partition(chr(10))[0]}")
            self.close()
            return False
        self._replay()
        return True

    def reset(self) -> None:
        """Drop the captured graph, so that the step may use other tensors, such as new moments of the optimizer."""
        self._replay, self._steps_run = None, 0

    def close(self) -> None:
        """End the drawing thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _body(self) -> None:
        assert self._inputs is not None, "fill comes before run"
        parts: list[Part] = []
        for samples, parameters in self._inputs.split(self._config.optim.accumulate_steps):
            images, labels = self._loader.gather(samples)
            if parameters is not None:
                images, labels = self._augmenter.apply(images, labels, parameters)
            parts.append((images, labels, self._loader.drawn(samples)))
        self._train(parts)

    def _draw(self, number: int) -> Inputs:
        epochs, samples = self._loader.draw.share(number)
        drawn, parameters = torch.from_numpy(samples), None
        if self._config.augment.enabled:
            parameters = draw_parameters(
                self._config.augment, seed=self._config.run.seed, epochs=epochs, samples=samples, size=self._loader.size
            )
        if self._loader.device.type != "cuda":
            return drawn, parameters
        # Pinned, so that copies do not wait
        return drawn.pin_memory(), parameters and parameters.map(torch.Tensor.pin_memory)
