"""Prediction with an artefact. It needs numpy, scipy, nibabel and onnxruntime, and neither torch nor accelerate."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from attunet.confidence.estimate import CaseConfidence
from attunet.errors import Finding, InputError
from attunet.export.artefact.artefact_file import load_artefact
from attunet.export.artefact.graph_tensors import DISAGREEMENT, LABELS, SPACING, VOLUME
from attunet.export.artefact.signature import verify_signature
from attunet.export.runtime.array_volume import volume_of_array
from attunet.export.runtime.backends.open_backend import open_backend
from attunet.export.runtime.input_checks import check_slices, check_window, warn_if_untrained
from attunet.export.runtime.observed_case import ObservedCase
from attunet.export.runtime.stop import Stop
from attunet.sources.input import Input
from attunet.volumes.model import PreparedVolume
from attunet.volumes.oriented_volume import OrientedVolume, class_indices, orient_volume
from attunet.volumes.postprocess import postprocess
from attunet.volumes.predict import MAX_MEGAPIXELS, Observer, check_megapixels, predict_prepared
from attunet.volumes.slices import VolumeSlices
from attunet.volumes.spec import Postprocessing
from attunet.volumes.volume import Volume


@dataclass(frozen=True, eq=False)
class Prediction:
    """A volume and its class indices uint8 `(X, Y, Z)` on the same grid."""

    volume: Volume
    indices: np.ndarray
    findings: tuple[Finding, ...] = ()  # warnings about spacing, size or intensities far outside the training set
    confidence: CaseConfidence | None = None  # estimated Dice; None where the artefact has no estimator


class Segmenter:
    """A loaded artefact, a `Model`. Any number of threads may predict with it.

    Args:
        path: an `.onnx` file written by `attunet export`.
        provider: `cpu`, `cuda`, `tensorrt` or `openvino`.
        num_threads: CPU threads of the providers `cpu` and `openvino`; the library's own choice by default.
        cuda_graph: records the first batch shape as a CUDA graph; for many batches of one shape.
        public_key: key or authority whose signature must lie beside the artefact; needs the extra `sign`.
        provider_options: options of the library that replace attunet's, such as `{"device_id": 1}` for a second GPU.

    Raises:
        InputError: the file is no intact artefact or has a newer schema; checked before a library reads it.
        RunError: the provider does not load on this machine, or would compute only part of the graph.

    Example:
        >>> segmenter = Segmenter("model.onnx", provider="cuda")  # doctest: +SKIP
        >>> segmenter.predict_file("scan.nii.gz").indices.shape  # doctest: +SKIP
    """

    # Bound on a volume's pixels on the network's grid, see `check_megapixels`; set it to another
    max_megapixels = MAX_MEGAPIXELS

    def __init__(
        self,
        path: Path | str,
        *,
        provider: str = "cpu",
        num_threads: int | None = None,
        cuda_graph: bool = False,
        provider_options: Mapping[str, object] | None = None,
        public_key: Path | str | None = None,
    ) -> None:
        self.path, self.provider = Path(path), provider
        self.metadata, data = load_artefact(self.path)
        about = self.metadata
        self.sha256 = hashlib.sha256(data).hexdigest()
        # Checked before a library reads the graph, on the same bytes that it will read.
        self.signature = None if public_key is None else verify_signature(self.path, public_key, data=data)
        self.name, self.classes, self.num_parameters = about.name, about.classes, about.num_parameters
        self.channels = about.channels
        height, width = about.spec.size
        self.spec = replace(about.spec, size=(about.height or height, about.width or width))
        self.postprocessing, self.ranges, self.estimator = about.postprocessing, about.ranges, about.confidence
        self.training_cases: Mapping[str, str] = about.training_cases
        self.training_voxels: Sequence[str] = about.training_voxels
        self.num_gates = len(about.attention_outputs)
        self.observed_outputs = ("logits", DISAGREEMENT) if DISAGREEMENT in about.outputs else ("logits",)
        try:
            self.backend = open_backend(
                data, about, provider, num_threads=num_threads, cuda_graph=cuda_graph, provider_options=provider_options
            )
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error

    def attention(self, slices: np.ndarray) -> tuple[np.ndarray, ...]:
        """Compute the attention maps of prepared slices.

        Args:
            slices: prepared slices float32 `(N, in_channels, H, W)`.

        Returns:
            One float32 `(N, h, w)` per gate, the deepest gate first; none where the artefact has no maps.
        """
        names = self.metadata.attention_outputs
        return tuple(values[:, 0] for values in self.run(names, slices)) if names else ()

    def logits(self, slices: np.ndarray) -> np.ndarray:
        """Compute the logits of prepared slices.

        Args:
            slices: prepared slices float32 `(N, in_channels, H, W)`.

        Returns:
            Logits float32 `(N, num_classes, H, W)`.
        """
        return self.run(("logits",), slices)[0]

    def observed(self, slices: np.ndarray) -> np.ndarray:
        """Compute the logits and, if the graph gives it, the disagreement of an ensemble's members.

        Args:
            slices: prepared slices float32 `(N, in_channels, H, W)`.

        Returns:
            float32 `(N, num_classes, H, W)`, with the disagreement as one more channel at the end.
        """
        return np.concatenate(self.run(self.observed_outputs, slices), axis=1)

    def run(self, outputs: tuple[str, ...], slices: np.ndarray) -> list[np.ndarray]:
        """Compute outputs of the graph for prepared slices.

        Args:
            outputs: their names in the graph, such as `logits`.
            slices: prepared slices float32 `(N, in_channels, H, W)`.

        Returns:
            One array per name, in that order.

        Raises:
            InputError: for an output that the graph lacks, and for a shape that it does not accept.
        """
        check_slices(self.path, self.metadata, outputs, slices.shape)
        return self.backend.run(outputs, np.ascontiguousarray(slices, dtype=np.float32))

    def predict_volume(self, volume: Volume, *, batch_size: int = 8) -> np.ndarray:
        """Segment a volume; besides the volume and its label map, memory holds one batch of slices.

        Args:
            volume: intensities and grid, as of `attunet.io.readers.read_volume`.
            batch_size: slices that the network computes at once.

        Returns:
            Class indices uint8 `(X, Y, Z)` on the volume's own grid.

        Raises:
            InputError: for another number of channels, and for slices larger than the artefact's fixed size.

        Warns:
            UntrainedInputWarning: for a volume far outside the training set.
        """
        check_megapixels(volume, self.spec, self.max_megapixels)
        prepared = self.prepare(volume, lazily=True)
        warn_if_untrained(volume, self)
        return self.predict_prepared(prepared, batch_size=batch_size)

    def prepare(self, volume: Volume, *, lazily: bool = False) -> PreparedVolume:
        """Resample and normalise a volume.

        Args:
            volume: intensities and grid, as of `attunet.io.readers.read_volume`.
            lazily: True computes slices when the network needs them.

        Returns:
            The input of `predict_prepared`.

        Raises:
            InputError: the artefact cannot take the volume.
        """
        if self.metadata.whole:
            return orient_volume(volume, self.spec)
        slices = VolumeSlices(volume, self.spec)
        return slices if lazily else slices.load()

    def segment_oriented(self, volume: np.ndarray, spacing: np.ndarray, *, stop: Stop | None = None) -> np.ndarray:
        """Run a whole artefact.

        Args:
            volume: float32 `(C, Z, Y, X)`, oriented as the pre-processing says.
            spacing: voxel size along Z, Y and X, in mm.
            stop: ends the run from another thread.

        Returns:
            Label values `(Z, Y, X)`, before post-processing.

        Raises:
            RunError: where `stop` ended the run.
        """
        inputs = {VOLUME: np.ascontiguousarray(volume, np.float32), SPACING: np.asarray(spacing, np.float32)}
        return self.backend.run_inputs((LABELS,), inputs, stop)[0]

    def predict_prepared(
        self,
        prepared: PreparedVolume,
        *,
        batch_size: int = 8,
        postprocessing: Postprocessing | None = None,
        observers: Sequence[Observer] = (),
        stop: Stop | None = None,
    ) -> np.ndarray:
        """Segment the result of `prepare`, or of `attunet.volumes.slices` with `spec`.

        Args:
            prepared: slices, or the oriented volume of a whole artefact.
            batch_size: slices that the network computes at once.
            postprocessing: replaces the artefact's own.
            observers: functions that receive the result of `observed` for every batch; a whole artefact calls none.
            stop: ends the run of a whole artefact from another thread, with a RunError.

        Returns:
            Class indices uint8 `(X, Y, Z)` on the volume's own grid.

        Example:
            >>> segmenter.predict_prepared(segmenter.prepare(volume), batch_size=4)  # doctest: +SKIP
        """
        finish = self.postprocessing if postprocessing is None else postprocessing
        if isinstance(prepared, OrientedVolume):
            if observers:
                raise InputError(
                    f"{self.path}: is a whole artefact, which gives labels alone: it shows no probabilities"
                )
            labels = self.segment_oriented(prepared.data, prepared.spacing, stop=stop)
            indices = class_indices(labels, self.classes, prepared.grid)
            return postprocess(indices, len(self.classes), prepared.grid.native_spacing, finish)
        check_window(self.path, self.metadata, prepared.grid.window)
        return predict_prepared(
            self.observed if observers else self.logits,
            prepared,
            batch_size=batch_size,
            postprocessing=finish,
            observers=observers,
            num_classes=len(self.classes),
        )

    def predict(self, data: np.ndarray, spacing: tuple[float, float, float], *, orientation: str = "RAS") -> np.ndarray:
        """Segment an array.

        Args:
            data: `(X, Y, Z)` or `(C, X, Y, Z)`.
            spacing: voxel size in mm along X, Y, Z.
            orientation: the direction of each axis as nibabel's axis codes: "RAS" after `nibabel.as_closest_canonical`,
                "LPS" for DICOM slices stacked upwards. A wrong orientation can swap left and right.

        Returns:
            Class indices uint8 `(X, Y, Z)`.
        """
        return self.predict_volume(volume_of_array(data, spacing, orientation))

    def predict_file(self, path: Path | str) -> Prediction:
        """Read and segment a file.

        `attunet.io.writers.write_labels(out, p.indices, segmenter.classes, p.volume)` writes the result `p`.

        Args:
            path: a scan in any format that `attunet predict` reads.

        Returns:
            The volume with its class indices, warnings and, where the artefact estimates it, the confidence.

        Raises:
            InputError: the file cannot be read or does not fit the artefact; the message names it.
        """
        volume = Input("", (Path(path),)).read(self.spec.num_channels, self.channels)
        try:
            check_megapixels(volume, self.spec, self.max_megapixels)
            prepared = self.prepare(volume, lazily=True)
            findings = warn_if_untrained(volume, self)
            observed = ObservedCase(self, self.estimator, volume, prepared)
            indices = self.predict_prepared(prepared, observers=observed.observers)
            return Prediction(volume, indices, findings, observed.confidence(indices, findings))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
