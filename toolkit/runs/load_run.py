"""A finished or unfinished run as others need it: the averaged network and what it was trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from attunet.classes import Classes
from attunet.config import ResolvedConfig
from attunet.errors import InputError
from attunet.fields import Fields
from attunet.models import SegmentationNetwork, build_model
from attunet.runs.checkpoint import Checkpoint, newest_checkpoint, read_checkpoint
from attunet.volumes.spec import Postprocessing, Preprocessing, PreprocessSpec
from attunet.volumes.training_ranges import TrainingRanges


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A run's newest checkpoint. network: the averaged weights, in eval mode, float32, on the CPU."""

    path: Path
    checkpoint: Path
    name: str
    network: SegmentationNetwork
    config: ResolvedConfig
    preprocessing: Preprocessing
    classes: Classes
    ranges: TrainingRanges
    store: Path
    fold: int | Literal["all"]
    training_cases: dict[str, str]  # case: SHA-256 of its image
    training_labels: dict[str, str] | None  # case: that of its mask; None where the run began before they were noted
    held_out: list[str]
    num_parameters: int
    step: int
    finished: bool
    num_members: int = 1  # networks in an ensemble

    @property
    def num_gates(self) -> int:
        """Attention maps of the network; 0 without gates."""
        return self.network.num_gates

    @property
    def spec(self) -> PreprocessSpec:
        return self.preprocessing.spec

    @property
    def postprocessing(self) -> Postprocessing:
        return self.preprocessing.postprocessing


def load_run(path: Path) -> TrainedRun:
    """Loads a run folder. Raises InputError when it is none, has no checkpoint yet, or none that verifies."""
    if not (path / "checkpoints").is_dir():
        raise InputError(f"{path}: is not a run: it has no folder checkpoints")
    checkpoint = newest_checkpoint(path / "checkpoints", parts=("average",))
    if checkpoint is None:
        raise InputError(f"{path}: has no checkpoint yet")
    state = checkpoint.state
    at = Fields(state, str(checkpoint.path))
    config, classes = ResolvedConfig.from_json(at.inner("config").data, at.where), Classes.from_json(at.rows("classes"))
    preprocessing = Preprocessing.from_json(at.inner("preprocessing"))
    network = build_model(config.model, preprocessing.spec.in_channels, len(classes))
    network.load_state_dict(checkpoint.tensors["average"])
    return TrainedRun(
        path=path,
        checkpoint=checkpoint.path,
        name=path.name,
        network=network.eval().requires_grad_(False),
        config=config,
        preprocessing=preprocessing,
        classes=classes,
        ranges=TrainingRanges.from_json(at.inner("ranges")),
        store=Path(state["store"]),
        fold=state["fold"],
        training_cases=state["training_cases"],
        training_labels=state.get("training_labels"),
        held_out=state["held_out"],
        num_parameters=sum(p.numel() for p in network.parameters()),
        step=state["step"],
        finished=state["finished"],
    )


def load_initial_weights(network: nn.Module, source: Path) -> None:
    """Starts `network` from the averaged weights of a run or of one checkpoint folder.

    Tensors of the head may differ in shape (other classes) and then keep their fresh values; any other difference is an InputError.
    """
    checkpoint: Checkpoint | None
    if (source / "checkpoints").is_dir():
        checkpoint = newest_checkpoint(source / "checkpoints", parts=("average",))
    else:
        checkpoint = read_checkpoint(source, parts=("average",))
    if checkpoint is None:
        raise InputError(f"{source}: has no checkpoint to start from")
    weights, own = checkpoint.tensors["average"], network.state_dict()
    if set(weights) != set(own):
        raise InputError(f"{source}: holds another network than the one to be trained ({checkpoint.state['config']['model']})")
    for name, value in weights.items():
        if value.shape == own[name].shape:
            own[name] = value
        elif not name.startswith("head."):
            raise InputError(f"{source}: {name} has the shape {tuple(value.shape)}, the network to be trained {tuple(own[name].shape)}")
    network.load_state_dict(own)
