"""The interface of a loaded model for every backend, and a model made of any function from slices to logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from attunet.classes import Classes
from attunet.volumes.oriented_volume import OrientedVolume
from attunet.volumes.predict import AttentionMaps, Network, Observer, predict_prepared
from attunet.volumes.slices import VolumeSlices
from attunet.volumes.spec import UNTOUCHED, Postprocessing, PreprocessSpec
from attunet.volumes.training_ranges import TrainingRanges
from attunet.volumes.volume import Volume

PreparedVolume = VolumeSlices | OrientedVolume


class Model(Protocol):
    """A trained network with the pre- and post-processing that belong to it.

    `attunet.load_model` returns one for a run, for a folder of runs (an ensemble) and for an artefact.
    """

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str:
        """Hash of the artefact's file, or of a run's last checkpoint; empty for a network that is in no file."""

    @property
    def spec(self) -> PreprocessSpec:
        """Preprocessing, with the slice size that the model needs."""

    @property
    def postprocessing(self) -> Postprocessing: ...

    @property
    def classes(self) -> Classes: ...

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the image's channels, in the order in which the model takes them; empty if they are not known."""

    @property
    def ranges(self) -> TrainingRanges | None:
        """Spacing, size and intensities seen in training; None if they are not known."""

    @property
    def training_cases(self) -> Mapping[str, str]:
        """Case name -> SHA-256 of its image, for every case in the training set."""

    @property
    def training_voxels(self) -> Sequence[str]:
        """Hashes of the voxels of the cases in the training set, which are the same in any file."""

    @property
    def num_parameters(self) -> int: ...

    @property
    def num_gates(self) -> int:
        """Number of attention maps that `attention` returns; 0 for a network without gates."""

    def logits(self, slices: np.ndarray) -> np.ndarray:
        """Compute logits float32 `(N, K, H, W)` of prepared slices float32 `(N, in_channels, H, W)`."""

    def attention(self, slices: np.ndarray) -> tuple[np.ndarray, ...]:
        """Compute the attention maps of prepared slices: `(N, h, w)` per gate, from 0 to 1, the deepest gate first."""

    def prepare(self, volume: Volume) -> PreparedVolume:
        """Prepare the input of `predict_prepared`. Raises InputError if the model does not accept this volume."""

    def predict_prepared(
        self,
        prepared: PreparedVolume,
        *,
        batch_size: int = 8,
        postprocessing: Postprocessing | None = None,
        observers: Sequence[Observer] = (),
    ) -> np.ndarray:
        """Segment a prepared volume: class indices uint8 `(X, Y, Z)` on the volume's own grid.

        Args:
            batch_size: number of slices per batch.
            postprocessing: settings that replace the model's own.
            observers: functions that receive the network's output of every batch.
        """


@dataclass(frozen=True, eq=False)
class NetworkModel:
    """A `Model` around a function from slices to logits."""

    name: str
    spec: PreprocessSpec
    classes: Classes
    network: Network  # function from slices float32 `(N, in_channels, H, W)` to logits float32 `(N, K, H, W)`
    postprocessing: Postprocessing = UNTOUCHED
    channels: tuple[str, ...] = ()
    ranges: TrainingRanges | None = None
    training_cases: Mapping[str, str] = field(default_factory=dict)
    training_voxels: Sequence[str] = ()
    num_parameters: int = 0
    num_gates: int = 0
    # Function from slices to the attention map `(N, h, w)` of every gate, the deepest first; None without gates
    maps: AttentionMaps | None = None
    # For an ensemble, function from slices to `(N, K + 1, H, W)`: the logits, then the disagreement of the members;
    # None for a single network
    with_disagreement: Network | None = None
    sha256: str = ""

    def logits(self, slices: np.ndarray) -> np.ndarray:
        return self.network(slices)

    def observed(self, slices: np.ndarray) -> np.ndarray:
        return (self.with_disagreement or self.network)(slices)

    def attention(self, slices: np.ndarray) -> tuple[np.ndarray, ...]:
        return self.maps(slices) if self.maps else ()

    def prepare(self, volume: Volume) -> VolumeSlices:
        return VolumeSlices(volume, self.spec).load()

    def predict_prepared(
        self,
        prepared: PreparedVolume,
        *,
        batch_size: int = 8,
        postprocessing: Postprocessing | None = None,
        observers: Sequence[Observer] = (),
    ) -> np.ndarray:
        assert not isinstance(prepared, OrientedVolume)
        finish = self.postprocessing if postprocessing is None else postprocessing
        return predict_prepared(
            self.observed if observers else self.logits,
            prepared,
            batch_size=batch_size,
            postprocessing=finish,
            observers=observers,
            num_classes=len(self.classes),
        )
