"""A finished or unfinished run, loaded: the averaged network and the data that it was trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from attunet.classes import Classes
from attunet.config import ResolvedConfig, ResolvedModelConfig
from attunet.errors import InputError
from attunet.models import SegmentationNetwork, build_model
from attunet.runs.read_checkpoint import Checkpoint, newest_checkpoint, read_checkpoint
from attunet.runs.run_state import RunState
from attunet.system.atomic_files import MANIFEST, sha256
from attunet.volumes.spec import Postprocessing, Preprocessing, PreprocessSpec
from attunet.volumes.training_ranges import TrainingRanges


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A run's newest checkpoint, or an ensemble of them.

    Args:
        path: the run folder.
        checkpoint: the checkpoint folder.
        name: of the run folder.
        network: the averaged weights, in eval mode, float32, on the CPU.
        state: the checkpoint's `state.json`.
        num_members: networks in an ensemble.
        checkpoint_sha256: of the manifest of each member's checkpoint.
        sections: the section `[model]` of the network, or the different ones of an ensemble.
    """

    path: Path
    checkpoint: Path
    name: str
    network: SegmentationNetwork
    state: RunState
    num_members: int = 1
    checkpoint_sha256: tuple[str, ...] = ()
    sections: tuple[ResolvedModelConfig, ...] = ()

    @property
    def config(self) -> ResolvedConfig:
        return self.state.config

    @property
    def networks(self) -> tuple[str, ...]:
        """`model.name` of the network, or the different ones of an ensemble."""
        return tuple(dict.fromkeys(section.name for section in self.sections))

    @property
    def preprocessing(self) -> Preprocessing:
        return self.state.preprocessing

    @property
    def spec(self) -> PreprocessSpec:
        return self.preprocessing.spec

    @property
    def classes(self) -> Classes:
        return self.state.classes

    @property
    def ranges(self) -> TrainingRanges:
        return self.state.ranges

    @property
    def store(self) -> Path:
        return self.state.store

    @property
    def fold(self) -> int | Literal["all"]:
        return self.state.fold

    @property
    def training_cases(self) -> dict[str, str]:
        """Case name to SHA-256 of its image."""
        return self.state.training_cases

    @property
    def held_out(self) -> list[str]:
        return self.state.held_out

    @property
    def step(self) -> int:
        return self.state.step

    @property
    def finished(self) -> bool:
        return self.state.finished

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    @property
    def num_gates(self) -> int:
        """Attention maps of the network; 0 without gates."""
        return self.network.num_gates

    @property
    def postprocessing(self) -> Postprocessing:
        return self.preprocessing.postprocessing


def load_run(path: str | Path) -> TrainedRun:
    """Load the newest checkpoint of a run folder.

    Raises:
        InputError: the folder is no run, has no checkpoint yet, or none that verifies.
    """
    path = Path(path)
    if not (path / "checkpoints").is_dir():
        raise InputError(f"{path}: is not a run: it has no folder checkpoints")
    checkpoint = newest_checkpoint(path / "checkpoints", parts=("average",))
    if checkpoint is None:
        raise InputError(f"{path}: has no checkpoint yet")
    return _trained(path, checkpoint)


def load_checkpoint(run_path: Path, folder: Path) -> TrainedRun:
    """Load a certain checkpoint, or a snapshot, of a run. Raises InputError where it is damaged."""
    return _trained(run_path, read_checkpoint(folder, parts=("average",)))


def _trained(path: Path, checkpoint: Checkpoint) -> TrainedRun:
    state = checkpoint.state
    network = build_model(state.config.model, state.preprocessing.spec.in_channels, len(state.classes))
    network.load_state_dict(checkpoint.tensors["average"])
    return TrainedRun(
        path,
        checkpoint.path,
        path.name,
        network.eval().requires_grad_(False),
        state,
        checkpoint_sha256=(sha256(checkpoint.path / MANIFEST),),
        sections=(state.config.model,),
    )
