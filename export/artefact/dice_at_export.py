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
    """Mean Dice of an artefact and of its checkpoint; `per_class` and `per_case` are the artefact's."""

    cases: Literal["held out", "training"]
    artefact: float | None
    checkpoint: float | None
    per_class: PerClass
    per_case: dict[str, PerClass]
    before_postprocessing: DiceBeforePostprocessing
