"""Weights of another model as the start of a training."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from attunet.classes import Classes
from attunet.errors import InputError, one_line
from attunet.fields import Fields, parse_json, shown
from attunet.models import SegmentationNetwork
from attunet.runs.lineage import Lineage
from attunet.runs.read_checkpoint import step_folders
from attunet.system.atomic_files import require_regular, sha256, verify_folder
from attunet.volumes.spec import PreprocessSpec

logger = logging.getLogger(__name__)

AVERAGE = "average.safetensors"


@dataclass(frozen=True)
class InitialWeights:
    """The weights of a parent model and what is known about them.

    Args:
        name: of the run or file.
        sha256: of the weights' file.
        tensors: averaged weights by name.
        settings: of `[model]` that the parent's network has.
        base_width: of the parent's network.
        num_channels: channels of its images, without context slices.
        classes: names of its classes, the background first.
        channels: names of its channels; empty where they are not known.
        seen: hashes of the files and voxels of all images that it has seen; None where they are not known.
    """

    name: str
    sha256: str
    tensors: Mapping[str, torch.Tensor]
    settings: Mapping[str, object]
    base_width: int
    num_channels: int
    classes: list[str]
    channels: Sequence[str] = ()
    seen: Sequence[str] | None = None

    def warn_if_cases_are_unknown(self) -> None:
        if self.seen is None:
            logger.warning(f"it is not known which cases {self.name} was trained on; scores of them would be too good")


def read_initial_weights(source: str | Path) -> InitialWeights:
    """Read the weights to start from, of a run folder, a checkpoint folder, or a `.safetensors` file of one. Raises
    InputError where the source is none of these, or cannot be read.
    """
    source = Path(source)
    path = source
    if (path / "checkpoints").is_dir():
        steps = step_folders(path / "checkpoints")
        if not steps:
            raise InputError(f"{source}: has no checkpoint to start from")
        path = steps[0]
    if path.is_dir():
        verify_folder(path, (AVERAGE,))
        path = path / AVERAGE
    try:
        require_regular(path)
        with safe_open(path, "pt") as file:
            metadata = (file.metadata() or {}).get("attunet")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{source}: must be a run, a checkpoint or a .safetensors file of one ({one_line(error)})"
        ) from None
    if metadata is None:
        raise InputError(f"{path}: has no metadata of attunet, which name its network and classes")
    try:
        at = Fields(parse_json(metadata), str(path))
    except ValueError:
        raise InputError(f"{path}: its metadata of attunet are not JSON") from None
    model = at.inner("model")
    return InitialWeights(
        name=source.absolute().name.encode(errors="replace").decode(),  # of `.` too; artefacts name it, in UTF-8
        sha256=sha256(path),
        tensors=tensors,
        settings={name: model.data[name] for name in ("name", "depth", "blocks") if name in model.data},
        base_width=model.whole("base_width", 1),
        num_channels=at.whole("num_channels", 1),
        classes=at.text_list("classes"),
        channels=at.text_list("channels"),
        seen=at.text_list("seen") if "seen" in at.data else None,
    )


def load_initial_weights(
    network: SegmentationNetwork,
    weights: InitialWeights,
    spec: PreprocessSpec,
    classes: Classes,
    renamed: Mapping[str, str],
    channels: Sequence[str] = (),
) -> Lineage:
    """Start a network from the weights of another model; classes and channels are matched by name.

    Args:
        network: to be trained, with fresh weights.
        spec, classes: of the training.
        renamed: class of the training -> the parent's name of it, where they differ.
        channels: names of the training's channels; empty where they are not known.

    Raises:
        InputError: the networks differ in more than the first convolution and the head, or a class to rename is
            unknown.

    Example:
        >>> weights = read_initial_weights("runs/abdomen")
        >>> load_initial_weights(network, weights, store.spec, store.classes, {"hepar": "liver"})  # doctest: +SKIP
    """
    own = network.state_dict()
    head = [name for name in own if name.startswith("head.")]
    first = next(name for name in own if name not in head)
    others = set(own) - {*head, first}
    _check_same_network(own, others, weights)
    _check_ends(own, head, first, weights)
    matched = _match(classes.names, weights.classes, renamed)
    same_classes = list(matched.values()) == list(range(len(weights.classes))) and len(matched) == len(classes.names)
    for name in head:
        for index, parent_index in matched.items():
            own[name][index] = weights.tensors[name][parent_index]
    by_name = _match_channels(channels, weights, spec.num_channels)
    own[first] = _first_convolution(weights.tensors[first], own[first].shape, weights.num_channels, spec, by_name)
    carried = torch.equal(own[first], weights.tensors[first])  # one channel stays as it is, whatever its name
    network.load_state_dict({**own, **{name: weights.tensors[name] for name in others}})
    same_channels = {channels[i]: weights.channels[j] for i, j in (by_name or {}).items()}
    return Lineage(
        parent=weights.name,
        sha256=weights.sha256,
        classes={classes.names[i]: weights.classes[j] for i, j in matched.items() if i > 0},
        new_classes=[name for i, name in enumerate(classes.names) if i not in matched],
        channels="carried" if carried else "matched" if same_channels else "averaged",
        fresh=[*([] if same_classes else head), *([] if carried else [first])],
        channel_names=same_channels,
    )


def _check_same_network(own: Mapping[str, torch.Tensor], others: Collection[str], weights: InitialWeights) -> None:
    """Raise InputError if a tensor is missing, or one of `others` has another shape."""
    if set(own) != set(weights.tensors):
        settings = ", ".join(f"model.{field} is {shown(value)}" for field, value in weights.settings.items())
        raise InputError(
            f"--init: {weights.name} holds another network than the one to be trained; its file says that {settings}"
        )
    for name in others:
        if own[name].shape != weights.tensors[name].shape:
            shapes = f"{tuple(weights.tensors[name].shape)} and {tuple(own[name].shape)}"
            raise InputError(
                f"--init: {weights.name} is of another width: {name} has the shapes {shapes}; set model.base_width "
                "alike"
            )


def _check_ends(own: Mapping[str, torch.Tensor], head: Sequence[str], first: str, weights: InitialWeights) -> None:
    """Raise InputError unless head and first convolution fit the classes and channels that the file names, and all
    weights are finite numbers of the network's type.
    """
    ends = {name: (len(weights.classes), *own[name].shape[1:]) for name in head}
    slices = max(1, weights.tensors[first].numel() // max(1, weights.num_channels * own[first][:, 0].numel()))
    ends[first] = (len(own[first]), slices * weights.num_channels, *own[first].shape[2:])
    for name, tensor in weights.tensors.items():
        shape = ends.get(name, tuple(tensor.shape))
        if tuple(tensor.shape) != shape or tensor.dtype != own[name].dtype or not bool(torch.isfinite(tensor).all()):
            must, got = (str(one.dtype).removeprefix("torch.") for one in (own[name], tensor))
            raise InputError(
                f"--init: {weights.name}: {name} must be finite {must} {shape}, for the file's {len(weights.classes)} "
                f"classes and {weights.num_channels} channels, got {got} {tuple(tensor.shape)}"
            )


def parse_renamed(text: str) -> dict[str, str]:
    """Read `NEW=PARENT,...`. Raises InputError for anything else."""
    renamed = {}
    for pair in text.split(","):
        new, equals, parent = (part.strip() for part in pair.partition("="))
        if not (new and equals and parent):
            raise InputError(f"--init-classes: must be NEW=PARENT,... with names of classes, got {text!r}")
        renamed[new] = parent
    return renamed


def _match(names: Sequence[str], parents: Sequence[str], renamed: Mapping[str, str]) -> dict[int, int]:
    """Index of each class -> index of its class in the parent; the background is always matched."""
    for new, parent in renamed.items():
        if new not in names:
            raise InputError(f"--init-classes: the store has no class {new!r}; it has {', '.join(names[1:])}")
        if parent not in parents:
            raise InputError(f"--init-classes: the model has no class {parent!r}; it has {', '.join(parents[1:])}")
    wanted = {i: renamed.get(name, name) for i, name in enumerate(names) if i > 0}
    return {0: 0, **{i: parents.index(parent) for i, parent in wanted.items() if parent in parents[1:]}}


def _match_channels(channels: Sequence[str], weights: InitialWeights, num_channels: int) -> dict[int, int] | None:
    """Index of each channel -> index of the parent's channel of that name in any case; None where names are missing."""
    if len(channels) != num_channels or len(weights.channels) != weights.num_channels:
        return None
    parents = [name.strip().lower() for name in weights.channels]
    names = [name.strip().lower() for name in channels]
    return {i: parents.index(name) for i, name in enumerate(names) if name in parents}


def _first_convolution(
    parent: torch.Tensor, shape: torch.Size, num_channels: int, spec: PreprocessSpec, by_name: Mapping[int, int] | None
) -> torch.Tensor:
    """Fit the parent's first convolution `(W, context * num_channels, 3, 3)` to the training's channels and context.

    It stays as it is if both are the same. Otherwise the middle context slice gets the sum of the parent's context
    slices, the others start at zero. Channels of the same name keep their weights. The parent's other channels are
    averaged over the training's other channels, scaled so that the same image in every channel gives the same features.
    Without names, as many channels stay in their places, and another number of them is averaged.
    """
    same_number = num_channels == spec.num_channels
    matched = by_name if by_name is not None else {i: i for i in range(num_channels) if same_number}
    if parent.shape == shape and same_number and all(matched.get(i) == i for i in range(num_channels)):
        return parent
    by_channel = parent.reshape(len(parent), -1, num_channels, *parent.shape[2:]).sum(1)
    left = [i for i in range(num_channels) if i not in matched.values()]
    others = spec.num_channels - len(matched)
    fitted = torch.zeros(len(parent), spec.context_slices, spec.num_channels, *parent.shape[2:], dtype=parent.dtype)
    for index in range(spec.num_channels):
        own = by_channel[:, matched[index]] if index in matched else by_channel[:, left].sum(1) / others
        fitted[:, spec.context_slices // 2, index] = own
    return fitted.flatten(1, 2)
