"""The model that every training of a cross-validation starts from."""

from dataclasses import dataclass
from pathlib import Path

from attunet.errors import InputError
from attunet.runs.initial_weights import parse_renamed, read_initial_weights
from attunet.runs.load_run import TrainedRun


@dataclass(frozen=True)
class Parent:
    """Weights to start from.

    Args:
        name: of the run or file; empty for fresh weights.
        sha256: of the weights; empty for fresh weights.
        arguments: of `attunet train`.
        words: the same as they stand in results, without folders.
    """

    name: str = ""
    sha256: str = ""
    arguments: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    def check_same(self, run: TrainedRun) -> None:
        """Raise InputError if a run started from other weights."""
        lineage = run.state.lineage
        if (lineage.sha256 if lineage else "") != self.sha256:
            there = f"the weights of {lineage.parent}" if lineage else "fresh weights"
            wanted = f"those of {self.name}" if self.name else "fresh weights"
            raise InputError(f"{run.path}: started from {there}, this comparison wants {wanted} (--init)")


FRESH = Parent()


def start_from(init: str | Path | None, init_classes: str) -> Parent:
    """Read the weights to start from; None for fresh ones.

    Raises:
        InputError: the weights cannot be read, or the classes are not `NEW=OLD,...`.
    """
    if init is None:
        if init_classes:
            raise InputError("--init-classes: needs --init")
        return FRESH
    weights = read_initial_weights(init)
    renamed = ("--init-classes", init_classes) if init_classes else ()
    if init_classes:
        parse_renamed(init_classes)
    return Parent(
        weights.name,
        weights.sha256,
        ("--init", str(Path(init).resolve()), *renamed),
        ("--init", weights.name, *renamed),
    )
