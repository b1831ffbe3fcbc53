"""The training step as one CUDA graph: captured once, then replayed, so that the host only sends each step's inputs.

A step of the 64-wide network at batch 16 is some 1,500 kernels, which take the host longer to queue than the device to
run. The inputs of a step (sample numbers, augmentation parameters, learning rate) lie in buffers that never move. A
thread draws the next step's inputs into pinned memory while the device computes. `torch.cuda.make_graphed_callables`
would capture the network alone.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from attunet.config import ResolvedConfig
from attunet.device.memory import is_out_of_memory
from attunet.loading.augment import Augmenter, draw_parameters
from attunet.loading.loader import Loader
from attunet.loading.resident import ResidentLoader
from attunet.training.batch_gradient import Part

logger = logging.getLogger(__name__)

# Inputs of a step: "samples", their numbers (N,) int64, and the parameters of augmentation where that is enabled.
Inputs = dict[str, torch.Tensor]
# Records the operations of a function, which need not run; returns a call that runs them on the same memory.
Capture = Callable[[Callable[[], None]], Callable[[], object]]
WARM_UP_STEPS = 3  # uncaptured: libraries choose algorithms and kernels are compiled


def capture_cuda_graph(function: Callable[[], None]) -> Callable[[], object]:
    """Capture a function of fixed buffers as a CUDA graph of the current device."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # the drawing thread may pin memory meanwhile
        function()
    return graph.replay


def graph_obstacle(config: ResolvedConfig, loader: Loader, processes: int) -> str:
    """Return the reason why the step cannot be a CUDA graph; an empty text if it can."""
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


class StepGraph:
    """The step of a training as a graph; the first `WARM_UP_STEPS` steps run uncaptured.

    `train` trains on the parts of a batch; `capture` is `capture_cuda_graph`, or a recorder of operators in tests.
    """

    def __init__(
        self,
        loader: ResidentLoader,
        augmenter: Augmenter,
        config: ResolvedConfig,
        train: Callable[[list[Part]], None],
        capture: Capture,
    ) -> None:
        self._loader, self._augmenter, self._config = loader, augmenter, config
        self._train, self._capture = train, capture
        self._buffers: Inputs = {}  # on the device, the same memory in every step
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
        inputs = self._drawn[1].result()
        self._drawn = number + 1, self._thread.submit(self._draw, number + 1)
        for name, value in inputs.items():
            if name not in self._buffers:
                self._buffers[name] = torch.empty_like(value, device=self._loader.device)
            self._buffers[name].copy_(value, non_blocking=True)

    def run(self) -> bool:
        """Run the step whose inputs are in the buffers. False, with a warning, if it cannot be captured and was not
        run; with `run.cuda_graph` "on" that is a RuntimeError.
        """
        self._steps_run += 1
        if self._replay is None and self._steps_run <= WARM_UP_STEPS:
            self._body()
            return True
        try:
            self._replay = self._replay or self._capture(self._body)
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
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _body(self) -> None:
        count = self._config.optim.accumulate_steps
        pieces = {name: buffer.tensor_split(count) for name, buffer in self._buffers.items()}
        parts: list[Part] = []
        for index in range(count):
            inputs = {name: views[index] for name, views in pieces.items()}
            images, labels = self._loader.gather(inputs["samples"])
            if self._config.augment.enabled:
                images, labels = self._augmenter.apply(images, labels, inputs)
            parts.append((images, labels, self._loader.drawn(inputs["samples"])))
        self._train(parts)

    def _draw(self, number: int) -> Inputs:
        epochs, samples = self._loader.draw.share(number)
        inputs = {"samples": torch.from_numpy(samples)}
        if self._config.augment.enabled:
            inputs |= draw_parameters(
                self._config.augment, seed=self._config.run.seed, epochs=epochs, samples=samples, size=self._loader.size
            )
        if self._loader.device.type != "cuda":
            return inputs
        return {name: value.pin_memory() for name, value in inputs.items()}  # so that copies do not wait
