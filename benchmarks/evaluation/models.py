"""The models of one evaluation: runs with PyTorch, artefacts with each of several providers."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from attunet.benchmarks.evaluation.results_table import label_of
from attunet.benchmarks.evaluation.timing import Timings, time_interleaved
from attunet.errors import InputError
from attunet.export.load_model import load_model
from attunet.export.runtime.backends.gpu import DeviceBackend
from attunet.export.runtime.segmenter import Segmenter
from attunet.fields import JsonObject, Rule
from attunet.volumes.model import Model, NetworkModel

logger = logging.getLogger(__name__)

BATCH_SIZES = (1, 8)


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    model: Model
    name: str  # distinct within an evaluation
    path: Path
    backend: str  # `pytorch`, `onnxruntime` or `openvino`
    provider: str  # of the backend; for PyTorch the device
    precision: str  # of the weights; of a whole artefact with the word `whole`
    file_mb: float  # size of the artefact, or of the run's weights
    # Prepared slices -> a function that runs them once, with input and output on the backend's device
    timed_call: Callable[[np.ndarray], Callable[[], object]]
    options: JsonObject  # settings of the backend that influence speed

    @property
    def label(self) -> str:
        return label_of(self.name, self.backend, self.provider, self.precision)

    @property
    def training_hashes(self) -> frozenset[str]:
        """SHA-256 of the files and hashes of the voxels of the images in the training set."""
        return frozenset((*self.model.training_cases.values(), *self.model.training_voxels))

    def random_slices(self, batch_size: int) -> np.ndarray:
        """Input float32 `(N, in_channels, H, W)` of the training window's size, for timing."""
        shape = (batch_size, self.model.spec.in_channels, *self.model.spec.size)
        return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def load_models(
    paths: Sequence[Path], *, providers: Sequence[str] = ("cpu",), device: str = "cpu", num_threads: int | None = None
) -> list[EvaluatedModel]:
    """Loads every run once, for PyTorch on `device` (`cpu` or `cuda`), and every artefact once per provider, in the
    order of `paths`. num_threads: of the CPU, the library's own choice by default; PyTorch's is the whole process's.

    Raises:
        InputError: without paths, and for a path that is neither a run nor an artefact.
        RunError: for a provider that does not load.
    """
    if not paths:
        raise InputError("evaluate: at least one model (a run or an .onnx) is needed")
    if device not in ("cpu", "cuda"):
        raise InputError(f"--device: must be cpu or cuda, got {device!r}")
    return _with_unique_names(
        [
            _evaluated(path, provider, num_threads)
            for path in dict.fromkeys(paths)
            for provider in ([device] if path.is_dir() else dict.fromkeys(providers))
        ]
    )


def check_seconds(seconds: float) -> None:
    """Raises InputError for a time that no model can be timed for."""
    Rule(float, 0.001, 86_400).check("latency_seconds", seconds)


def time_networks(models: Sequence[EvaluatedModel], seconds: float, batch_sizes: Sequence[int]) -> list[list[Timings]]:
    """Times the networks alone for `seconds` at each batch size, the models in turn; one list of timings per model."""
    timings: list[list[Timings]] = [[] for _ in models]
    for batch_size in batch_sizes:
        logger.info(f"timing {len(models)} models at batch {batch_size}, {seconds:g} s each")
        calls = [one.timed_call(one.random_slices(batch_size)) for one in models]
        for rows, runs in zip(timings, time_interleaved(calls, seconds=seconds), strict=True):
            rows.append(Timings(batch_size, runs))
    return timings


def _evaluated(path: Path, provider: str, num_threads: int | None) -> EvaluatedModel:
    model = load_model(path, provider=provider, device=provider, num_threads=num_threads)
    evaluated = partial(EvaluatedModel, model=model, name=model.name, path=path, provider=provider)
    if isinstance(model, Segmenter):
        return evaluated(
            backend="openvino" if provider == "openvino" else "onnxruntime",
            precision=model.metadata.precision + (" whole" if model.metadata.whole else ""),
            file_mb=path.stat().st_size / 1e6,
            timed_call=partial(segmenter_call, model),
            options=dict(model.backend.options),
        )
    from attunet.models.torch_network import TorchNetwork

    assert isinstance(model, NetworkModel)
    assert isinstance(model.network, TorchNetwork)
    network = model.network
    return evaluated(
        backend="pytorch",
        precision="fp32",
        file_mb=network.weights_mb,
        timed_call=network.timed_call,
        options=network.options,
    )


def segmenter_call(segmenter: Segmenter, slices: np.ndarray) -> Callable[[], object]:
    """A call that segments prepared slices once, with input and output on the backend's device."""
    if segmenter.metadata.whole:
        volume = slices[:, : segmenter.spec.num_channels].swapaxes(0, 1)
        spacing = np.full(3, segmenter.spec.spacing_mm or 1.0)
        return lambda: segmenter.segment_oriented(volume, spacing)
    if isinstance(segmenter.backend, DeviceBackend):
        return segmenter.backend.bound_call(("logits",), slices)
    return lambda: segmenter.logits(slices)


def _with_unique_names(models: list[EvaluatedModel]) -> list[EvaluatedModel]:
    """Numbers the later ones of models with equal labels, such as the folds of a cross-validation."""
    counts = Counter[str]()
    unique = []
    for one in models:
        counts[one.label] += 1
        number = counts[one.label]
        unique.append(one if number == 1 else replace(one, name=f"{one.name} #{number}"))
    return unique
