"""A finished or unfinished run, loaded: the averaged network and the data that it was trained on."""

from dataclasses import dataclass
from pathlib import Path

from attunet.config import ResolvedModelConfig
from attunet.errors import InputError
from attunet.models import SegmentationNetwork, build_model
from attunet.runs.read_checkpoint import Checkpoint, newest_checkpoint, read_checkpoint
from attunet.runs.run_state import RunState
from attunet.store import Store
from attunet.system.atomic_files import MANIFEST, sha256
from attunet.volumes.spec import Postprocessing, PreprocessSpec


@dataclass(frozen=True, kw_only=True)
class TrainedRun(RunState):
    """A run's newest checkpoint, or an ensemble of them: its state and its network.

    Args:
        path: the run folder.
        checkpoint: the checkpoint folder.
        name: of the run folder.
        network: the averaged weights, in eval mode, float32, on the CPU.
        num_members: networks in an ensemble.
        checkpoint_sha256: of the manifest of each member's checkpoint.
        sections: the section `[model]` of the network, or the different ones of an ensemble.
    """

    path: Path
    checkpoint: Path
    name: str
    network: SegmentationNetwork
    num_members: int = 1
    checkpoint_sha256: tuple[str, ...]
    sections: tuple[ResolvedModelConfig, ...]

    @property
    def networks(self) -> tuple[str, ...]:
        """`model.name` of the network, or the different ones of an ensemble."""
        return tuple(dict.fromkeys(section.name for section in self.sections))

    @property
    def spec(self) -> PreprocessSpec:
        return self.preprocessing.spec

    @property
    def postprocessing(self) -> Postprocessing:
        return self.preprocessing.postprocessing

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    @property
    def num_gates(self) -> int:
        """Attention maps of the network; 0 without gates."""
        return self.network.num_gates


def load_run(path: str | Path) -> TrainedRun:
    """Load the newest checkpoint of a run folder. Raises InputError for a folder that is no run, has no checkpoint yet,
    or none that verifies.
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


def in_numbers(run: TrainedRun, store: Store) -> TrainedRun:
    """The run with the store's numbers in place of the names of cases, if `store` got them for this call; a run may
    have been trained under them. Raises InputError where the store lacks cases that the run was trained on.
    """
    if not store.numbers:
        return run
    images = {case.name: case.image_sha256 for case in store.cases}
    if run.training_cases.items() <= images.items():
        return run
    numbers = {name: number for name, number in store.numbers.items() if number in images}
    if not run.training_cases.items() <= {name: images[number] for name, number in numbers.items()}.items():
        raise InputError(
            f"{store.path}: has not all cases that {run.path} was trained on, by their names or by numbers of this "
            "table; name the store that it was trained on, and its table"
        )
    return run.renamed(numbers)


def _trained(path: Path, checkpoint: Checkpoint) -> TrainedRun:
    state = checkpoint.state
    network = build_model(state.config.model, state.preprocessing.spec.in_channels, len(state.classes))
    network.load_state_dict(checkpoint.tensors["average"])
    return TrainedRun(
        **vars(state),
        path=path,
        checkpoint=checkpoint.path,
        name=path.absolute().name,  # of `.` too
        network=network.eval().requires_grad_(False),
        checkpoint_sha256=(sha256(checkpoint.path / MANIFEST),),
        sections=(state.config.model,),
    )
