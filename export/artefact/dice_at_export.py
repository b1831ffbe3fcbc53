"""The type of the Dice that an artefact carries: its own, and that of the checkpoint that it was made of."""

from typing import Literal, TypedDict

from attunet.metrics.results import PerClass


class DiceBeforePostprocessing(TypedDict):
    """`agreement`: Dice between the two label maps."""

    artefact: float | None
    checkpoint: float | None
    agreement: float
    equal_voxels: float | None


class DiceAtExport(TypedDict):
    """Mean Dice of an artefact and of its checkpoint; `per_class`, `per_case` and `ci95` are the
    artefact's; `ci95` is the 95 % interval of its mean over the patients, None for too few of them.
    """

    cases: Literal["held out", "training"]
    artefact: float | None
    checkpoint: float | None
    per_class: PerClass
    per_case: dict[str, PerClass]
    ci95: list[float] | None
    before_postprocessing: DiceBeforePostprocessing
