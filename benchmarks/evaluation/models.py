"""The models of one evaluation, loaded: runs with PyTorch, artefacts with every provider asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from attunet.benchmarks.evaluation.results_table import label_of
from attunet.classes import Classes
from attunet.errors import InputError
from attunet.export.runtime.gpu import DeviceBackend
from attunet.export.runtime.segmenter import Segmenter
from attunet.volumes.predict import Network
from attunet.volumes.spec import UNTOUCHED, Postprocessing, PreprocessSpec

Attention = Callable[[np.ndarray], tuple[np.ndarray, tuple[np.ndarray, ...]]]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One model on one backend, ready to run.

    network: slices to logits, from and to the host. timed_call: makes a call that is one pass with input and output where the
    backend wants them, to time the network alone. postprocessing: as for `predict_volume`.
    attention: logits and the gates' maps, where the backend gives them. window: (H, W) of the slices that are timed.
    training_hashes: SHA-256 of the images that the weights have seen. options: what the backend says it really runs with.
    """

    name: str
    path: Path
    backend: str
    provider: str
    precision: str
    num_parameters: int
    file_mb: float
    spec: PreprocessSpec
    classes: Classes
    training_hashes: frozenset[str]
    network: Network
    timed_call: Callable[[np.ndarray], Callable[[], object]]
    options: dict[str, Any]
    window: tuple[int, int]
    postprocessing: Postprocessing = UNTOUCHED
    attention: Attention | None = None

    @property
    def label(self) -> str:
        """What tables and pictures call it."""
        return label_of(self.name, self.backend, self.provider, self.precision)

    def random_slices(self, batch_size: int) -> np.ndarray:
        """Input float32 (N, C, H, W) for timing."""
        shape = (batch_size, self.spec.in_channels, *self.window)
        return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def load_candidates(
    models: Sequence[Path], *, providers: Sequence[str] = ("cpu",), device: str = "cpu", num_threads: int | None = None
) -> list[Candidate]:
    """Every run once on `device`, every artefact once per provider, in the order given.

    num_threads: of the CPU backends, the library's own choice by default; PyTorch's is the whole process's.
    Raises InputError for a path that is neither, for a provider that does not load, and when no model is given.
    """
    if not models:
        raise InputError("evaluate: at least one model (a run or an .onnx) is needed")
    if device not in ("cpu", "cuda"):
        raise InputError(f"--device: must be cpu or cuda, got {device!r}")
    candidates: list[Candidate] = []
    for path in dict.fromkeys(models):
        if path.is_dir():
            candidates.append(_from_run(path, device, num_threads))
        elif path.suffix == ".onnx":
            candidates.extend(_from_artefact(path, provider, num_threads) for provider in dict.fromkeys(providers))
        else:
            raise InputError(f"{path}: must be a run (a folder) or an artefact (.onnx){'' if path.exists() else '; there is no such file'}")
    return _with_unique_names(candidates)


def _from_run(path: Path, device: str, num_threads: int | None) -> Candidate:
    try:
        from attunet.models.torch_network import TorchNetwork
        from attunet.runs.ensemble import load_runs
    except ModuleNotFoundError as error:
        raise InputError(f"{path}: a run needs the extra 'train' ({error.name} is not installed); an .onnx does not") from None
    run = load_runs(path)
    network = TorchNetwork(run.network, device, num_threads=num_threads)
    return Candidate(
        name=run.name,
        path=path,
        backend="pytorch",
        provider=device,
        precision="fp32",
        num_parameters=run.num_parameters,
        file_mb=network.weights_mb,
        spec=run.spec,
        classes=run.classes,
        training_hashes=frozenset(run.training_cases.values()),
        network=network,
        timed_call=network.timed_call,
        options=network.options,
        window=run.spec.size,
        postprocessing=run.postprocessing,
        attention=network.attention,
    )


def _from_artefact(path: Path, provider: str, num_threads: int | None) -> Candidate:
    segmenter = Segmenter(path, provider=provider, num_threads=num_threads)
    about = segmenter.metadata
    return Candidate(
        name=about.name,
        path=path,
        backend="openvino" if provider == "openvino" else "onnxruntime",
        provider=provider,
        precision=about.precision,
        num_parameters=about.num_parameters,
        file_mb=path.stat().st_size / 1e6,
        spec=segmenter.spec,
        classes=segmenter.classes,
        training_hashes=frozenset(about.training_cases.values()),
        network=segmenter.logits,
        timed_call=lambda slices: _timed_call(segmenter, slices),
        options=dict(segmenter.backend.options),
        window=segmenter.spec.size,
        postprocessing=about.postprocessing,
    )


def _timed_call(segmenter: Segmenter, slices: np.ndarray) -> Callable[[], object]:
    if isinstance(segmenter.backend, DeviceBackend):
        return segmenter.backend.bound_call(("logits",), slices)
    return lambda: segmenter.logits(slices)


def _with_unique_names(candidates: list[Candidate]) -> list[Candidate]:
    """Two files may carry one name (the folds of a cross-validation, say): the later ones get a number."""
    seen: dict[str, list[Path]] = {}
    unique = []
    for candidate in candidates:
        files = seen.setdefault(candidate.label, [])
        files.append(candidate.path)
        unique.append(candidate if len(files) == 1 else replace(candidate, name=f"{candidate.name} #{len(files)}"))
    return unique
