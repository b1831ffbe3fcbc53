"""The section `[data]` of a configuration."""

from dataclasses import dataclass
from typing import Literal, Self

from attunet.config.section import Auto, Section, setting
from attunet.errors import InputError
from attunet.volumes.spec import MULTIPLE, Preprocessing


@dataclass(frozen=True)
class DataConfig(Section):
    """The preprocessing that the user chooses; `prepare` resolves it for all cases together."""

    NAME = "data"

    spacing_mm: float | Auto = setting(
        "auto", "In-plane pixel size in mm after resampling; auto: the median.", 0.001, 1000
    )
    size: int | tuple[int, int] | Auto = setting(
        "auto",
        "Side of the square training window, or its rows and columns; auto: a square that holds every label "
        "and nearly whole slices.",
        32,
        4096,
        multiple_of=MULTIPLE,
    )
    normalization: Literal["zscore", "ct", "none", "auto"] = setting(
        "auto", "Intensity scaling; auto: ct for Hounsfield units, else zscore."
    )
    clip_percentiles: tuple[float, float] = setting(
        (0.5, 99.5), "Percentiles that intensities are clipped at (zscore).", 0, 100, rising=True
    )
    window: tuple[float, float] = setting(
        (-160.0, 240.0), "Lower and upper intensity of the window (ct), in HU.", -1e6, 1e6, rising=True
    )
    context_slices: int = setting(1, "Neighbouring slices given as channels.", 1, 5, odd=True)
    largest_component: bool | Auto = setting(
        "auto",
        "Label maps keep only the largest connected part of every class; auto: if all masks are of one part per class.",
    )
    component_erosion_mm: float | Auto = setting(
        "auto",
        "Parts joined to the largest one by a neck of less than twice this width are removed too, 0: none; auto: the "
        "widest that keeps the masks whole.",
        0,
        100,
    )
    slice_axis: int | Auto = setting("auto", "Slice axis after orientation; auto: the coarsest.", 0, 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.size, tuple) and self.size[0] == self.size[1]:
            object.__setattr__(self, "size", self.size[0])  # a square is always written as one number
        if self.largest_component is False and self.component_erosion_mm not in ("auto", 0):
            erosion_mm = self.component_erosion_mm
            raise InputError(
                f'data.component_erosion_mm: must be 0 or "auto" with data.largest_component false, got {erosion_mm:g}'
            )

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> Self:
        """Write a resolved preprocessing as a section.

        Args:
            preprocessing: of a store.

        Returns:
            The section; without physical spacing, `spacing_mm` stays "auto".
        """
        spec, post = preprocessing.spec, preprocessing.postprocessing
        return cls(
            spacing_mm="auto" if spec.spacing_mm is None else spec.spacing_mm,
            size=spec.size,
            normalization=spec.normalization,
            clip_percentiles=spec.clip_percentiles,
            window=spec.window,
            context_slices=spec.context_slices,
            largest_component=post.largest_component,
            component_erosion_mm=post.erosion_mm,
            slice_axis=spec.slice_axis,
        )
