"""A loaded artefact under the name that clients use."""

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attunet.errors import InputError
from attunet.export.runtime.audit import Audit
from attunet.export.runtime.segmenter import Segmenter
from attunet.export.runtime.stop import Stop
from attunet.export.serve.formats import ModelDescription
from attunet.export.serve.work.shared_batches import SharedBatches
from attunet.system.audit_log import AuditLog
from attunet.volumes.oriented_volume import OrientedVolume

GPU_PROVIDERS = ("cuda", "tensorrt")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A loaded artefact.

    turns: how many threads may run the network at once. audit: where every case is recorded.
    """

    name: str
    segmenter: Segmenter
    turns: threading.Semaphore
    shared: SharedBatches | None
    audit: Audit | None = None

    @property
    def sha256(self) -> str:
        """SHA-256 of the artefact's file."""
        return self.segmenter.sha256

    def observed(self, slices: np.ndarray) -> np.ndarray:
        """As `Segmenter.observed`; on a GPU in one batch with the slices of other requests."""
        if self.shared is not None:
            return self.shared(slices)
        with self.turns:
            return self.segmenter.observed(slices)

    def segment_whole(self, prepared: OrientedVolume, stop: Stop) -> np.ndarray:
        """Class indices `(X, Y, Z)` of an oriented volume, by an artefact that takes whole ones;
        RunError where `stop` ends the run.
        """
        with self.turns:
            return self.segmenter.predict_prepared(prepared, stop=stop)

    def run_whole(self, volume: np.ndarray, spacing: np.ndarray, stop: Stop) -> np.ndarray:
        """Label values `(Z, Y, X)` that the graph of a whole artefact gives for a volume float32 `(C, Z, Y, X)`;
        `stop` as above.
        """
        with self.turns:
            return self.segmenter.segment_oriented(volume, spacing, stop=stop)

    def run(self, outputs: tuple[str, ...], slices: np.ndarray) -> list[np.ndarray]:
        """The named outputs of the graph for slices `(N, in_channels, H, W)`."""
        with self.turns:
            return self.segmenter.run(outputs, slices)

    def describe(self) -> ModelDescription:
        """Name, hash, precision, provider and classes as JSON values."""
        about = self.segmenter.metadata
        return {
            "name": self.name,
            "network": about.name,
            "sha256": self.sha256,
            "precision": about.precision,
            "provider": self.segmenter.provider,
            "channels": self.segmenter.spec.num_channels,
            "classes": [
                {"name": name, "value": value}
                for name, value in zip(about.classes.names, about.classes.values, strict=True)
            ],
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
    """Loads every artefact once, under its file's name without ending,
    or under NAME where the path is given as NAME=PATH.

    All of them share `workers` turns: on a CPU every network uses all threads, and several at once only get in each
    other's way.
    public_key: refuses what is not signed with it. audit_log: of all models.
    Raises InputError for two models of one name, a name that does not fit in an address, and what `Segmenter` refuses.
    """
    turns, models = threading.Semaphore(workers), {}
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
        shared = SharedBatches(segmenter.observed) if provider in GPU_PROVIDERS else None
        audit = Audit(audit_log, segmenter.sha256, segmenter.signature) if audit_log is not None else None
        models[name] = ServedModel(name, segmenter, turns, shared, audit)
    return models
