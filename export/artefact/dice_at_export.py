"""The type of the Dice that an artefact carries: its own, and that of the checkpoint that it was made of."""

from typing import Literal, TypedDict

from attunet.metrics.results import PerClass


class DiceAtExport(TypedDict):
    """Mean Dice of an artefact and of its checkpoint; `per_class`, `per_case` and `ci95` are the artefact's, the last
    one the 95 % interval of its mean over the patients, None for too few of them. `before_postprocessing` has both
    means, `agreement`, the Dice between the two label maps, and `equal_voxels`.
    """

    cases: Literal["held out", "training"]
    artefact: float | None
    checkpoint: float | None
    per_class: PerClass
    per_case: dict[str, PerClass]
    ci95: list[float] | None
    before_postprocessing: dict[str, float | None]
