"""A loaded artefact under the name that clients use."""

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attunet.errors import InputError
from attunet.export.runtime.audit import Audit
from attunet.export.runtime.backends.open_backend import GPU_PROVIDERS
from attunet.export.runtime.segmenter import Segmenter
from attunet.export.serve.formats import ModelDescription
from attunet.export.serve.work.shared_batches import SharedBatches
from attunet.privacy.audit_log import AuditLog
from attunet.system.workers import usable_cores

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A loaded artefact under its name."""

    name: str
    segmenter: Segmenter
    turns: threading.Semaphore  # held while the network runs
    shared: SharedBatches | None  # on a GPU, the network for slices of several requests
    audit: Audit | None = None  # the log of every case

    def run(self, outputs: tuple[str, ...], slices: np.ndarray) -> list[np.ndarray]:
        """As `Segmenter.run`; on a GPU in one batch with the slices of other requests."""
        if self.shared is not None:
            return self.shared.run(outputs, slices)
        with self.turns:
            return self.segmenter.run(outputs, slices)

    def observed(self, slices: np.ndarray) -> np.ndarray:
        """As `Segmenter.observed`, by `run`."""
        return np.concatenate(self.run(self.segmenter.observed_outputs, slices), axis=1)

    def describe(self) -> ModelDescription:
        """Name, hash, precision, provider and classes as JSON values."""
        about = self.segmenter.metadata
        classes = zip(about.classes.names, about.classes.values, strict=True)
        return {
            "name": self.name,
            "network": about.name,
            "sha256": self.segmenter.sha256,
            "precision": about.precision,
            "provider": self.segmenter.provider,
            "channels": self.segmenter.spec.num_channels,
            "channel_names": list(self.segmenter.channels),
            "classes": [{"name": name, "value": value} for name, value in classes],
        }


def load_models(
    paths: Sequence[str | Path],
    *,
    provider: str = "cpu",
    workers: int = 1,
    num_threads: int | None = None,
    public_key: Path | None = None,
    audit_log: AuditLog | None = None,
) -> dict[str, ServedModel]:
    """Load every artefact under its file's name without ending, or under NAME where the path is NAME=PATH. All of them
    share `workers` turns, and by default the cores. Raises InputError where two models have one name, a name does not
    fit in an address, or `Segmenter` refuses a file.

    Example:
        >>> load_models(["liver.onnx", "kidneys=model.onnx"], workers=2)  # doctest: +SKIP
    """
    turns, models = threading.Semaphore(workers), {}
    if num_threads is None and workers > 1 and provider == "cpu":
        num_threads = _threads(len(paths), workers)
    for text in map(str, paths):
        given, _, path = text.rpartition("=") if "=" in text and not Path(text).exists() else ("", "", text)
        if Path(path).is_dir():
            raise InputError(f"{path}: is a folder; serve takes artefacts (.onnx), which attunet export writes")
        name = given or Path(path).name.removesuffix(".onnx")
        if not NAME.fullmatch(name):
            raise InputError(
                f"{path}: a served model's name may have letters, digits, '.', '_' and '-', got {name!r}; give "
                "NAME=PATH"
            )
        if name in models:
            raise InputError(f"{path}: two models have the name {name!r}; give one as NAME=PATH")
        segmenter = Segmenter(path, provider=provider, num_threads=num_threads, public_key=public_key)
        shared = SharedBatches(segmenter.run) if provider in GPU_PROVIDERS else None
        audit = Audit(audit_log, segmenter.sha256, segmenter.signature) if audit_log is not None else None
        models[name] = ServedModel(name, segmenter, turns, shared, audit)
    return models


def _threads(num_models: int, workers: int) -> int:
    """Threads of each session, which help all of its runs; each run has the thread that called it besides."""
    return 1 + max(0, usable_cores() - workers) // min(num_models, workers)
