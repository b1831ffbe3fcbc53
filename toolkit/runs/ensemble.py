"""Ensembles: several runs, or snapshots along one run, as one model, the mean of their probabilities.

A folder with runs below it, and the folder `snapshots` of a run, can be used like a run.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from attunet.errors import InputError
from attunet.models import SegmentationNetwork
from attunet.runs.load_run import TrainedRun, load_checkpoint, load_run
from attunet.runs.read_checkpoint import step_folders
from attunet.runs.run_folder import CHECKPOINTS, DEPTH, SNAPSHOTS, folders_with


class EnsembleNetwork(SegmentationNetwork):
    """Slices `(N, C, H, W)` to the logarithm of the members' mean probabilities `(N, K, H, W)`, as logits.

    Members may be different networks. The attention maps are the mean over those that have gates, if all of these have
    as many.
    """

    def __init__(self, members: Sequence[SegmentationNetwork]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        numbers = {member.num_gates for member in members} - {0}
        self.num_gates = numbers.pop() if len(numbers) == 1 else 0

    def forward(self, x: Tensor) -> Tensor:
        return self.with_attention(x)[0]

    def with_attention(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute the logits and, as attention maps, the mean over the members that have gates."""
        mean, _, maps = self._outputs(x)
        return mean, maps

    def with_disagreement(self, x: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Compute the logits, the members' disagreement `(N, 1, H, W)` from 0 to 1, and the attention maps.

        The disagreement is the entropy of the mean probabilities minus the members' mean entropy, 1 where each member
        is sure of another class (Lakshminarayanan et al. 2017; the mutual information of class and member).
        """
        mean, logits, maps = self._outputs(x)
        entropies = -(logits.exp() * logits).sum(dim=2).mean(dim=0)
        difference = -(mean.exp() * mean).sum(dim=1) - entropies
        return mean, (difference / math.log(mean.shape[1])).clamp(0, 1).unsqueeze(1), maps

    def _outputs(self, x: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Logits of the mean, logarithms of each member's probabilities `(M, N, K, H, W)`, and attention maps."""
        outputs = [member.with_attention(x) for member in self.members]  # type: ignore[operator]
        logits = torch.stack([logits.log_softmax(dim=1) for logits, _ in outputs])
        greatest = logits.amax(dim=0)
        mean = (logits - greatest).exp().mean(dim=0).log() + greatest  # without underflow
        of_members = [maps for _, maps in outputs if maps] if self.num_gates else []
        return mean, logits, tuple(torch.stack(maps).mean(dim=0) for maps in zip(*of_members, strict=True))


def load_runs(path: Path) -> TrainedRun:
    """A run, the ensemble of a run's snapshots, or that of all runs below a folder (three levels deep at most,
    links are followed).

    The training cases of an ensemble are those of all members; `held_out` are the cases that every member left out,
    `fold` is the members' if it is the same, `step` the smallest, `config` the first member's, `lineage` and
    `store_sha256` the members' if they have one parent and one store. Members may be of different networks.

    Raises:
        InputError: there are no runs below the path, they do not fit together, or one is not finished.
    """
    if (path / CHECKPOINTS).is_dir():
        return load_run(path)
    if path.name == SNAPSHOTS and (snapshots := step_folders(path)):
        members = [load_checkpoint(path.parent, folder) for folder in reversed(snapshots)]
        _check_finished(members[-1:])  # the others are of earlier steps
        return _together(path, members)
    folders = list(folders_with(f"{CHECKPOINTS}/", path, DEPTH))
    if not folders:
        raise InputError(
            f"{path}: is not a run (it has no folder checkpoints), and none lies up to {DEPTH} levels below it"
        )
    return ensemble_of(path, [load_run(folder) for folder in folders])


def ensemble_of(path: Path, members: Sequence[TrainedRun]) -> TrainedRun:
    """Several loaded runs as one; path: its name in messages. Raises InputError as `load_runs` does."""
    _check_finished(members)
    first = members[0]
    for member in members:
        for what in ("preprocessing", "classes", "channels"):
            if getattr(member, what) != getattr(first, what):
                raise InputError(
                    f"{path}: members must be of one data set; {member.path} and {first.path} differ in their {what}"
                )
    return _together(path, members)


def _check_finished(members: Sequence[TrainedRun]) -> None:
    for member in members:
        if not member.finished:
            raise InputError(
                f"{member.path}: is not finished (step {member.step}), and every member of an ensemble must be"
            )


def _together(path: Path, members: Sequence[TrainedRun]) -> TrainedRun:
    first, folds = members[0], {member.fold for member in members}
    seen: dict[str, tuple[str, str, str]] = {}
    for member in members:
        for case, image in member.training_cases.items():
            files = image, member.training_labels.get(case, ""), member.readings.get(case, "")
            if seen.setdefault(case, files) != files:
                raise InputError(
                    f"{path}: members must be of one data set; {member.path} was trained on another image or mask of "
                    "a case than the members before it"
                )
    sections = tuple(dict.fromkeys(member.config.model for member in members))
    names = dict.fromkeys(section.name for section in sections)
    stores = {member.store_sha256 for member in members}
    parents = {member.lineage and member.lineage.sha256 for member in members}
    held_out = set.intersection(*(set(member.held_out) for member in members)) - set(seen)
    return dataclasses.replace(
        first,
        path=path,
        name=f"{'+'.join(names)}-ensemble-of-{len(members)}",
        network=EnsembleNetwork([member.network for member in members]).eval(),
        num_members=len(members),
        checkpoint_sha256=tuple(digest for member in members for digest in member.checkpoint_sha256),
        sections=sections,
        fold=first.fold if len(folds) == 1 else "all",
        training_cases={case: image for case, (image, _, _) in seen.items()},
        training_labels={case: mask for case, (_, mask, _) in seen.items()},
        readings={case: reading for case, (_, _, reading) in seen.items()},
        training_voxels=sorted({digest for member in members for digest in member.training_voxels}),
        held_out=[case for case in first.held_out if case in held_out],
        step=min(member.step for member in members),
        finished=True,
        lineage=first.lineage if len(parents) == 1 else None,  # one parent is named, and several cannot be
        store_sha256=first.store_sha256 if len(stores) == 1 else "",  # likewise
    )
