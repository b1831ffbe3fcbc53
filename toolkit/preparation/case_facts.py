"""Facts of a case, from which the preprocessing is resolved and on which the checks work."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypedDict

from attunet.volumes.geometry import resampled_length

PERCENTILES = (0.5, 5.0, 25.0, 50.0, 75.0, 95.0, 99.5)
ORIENTATION = "LPS"
EROSIONS_MM = tuple(range(1, 9))


class ChannelIntensity(TypedDict):
    """Statistics of the intensities of one channel; `percentiles` are those of `PERCENTILES`."""

    min: float
    max: float
    mean: float
    std: float
    percentiles: tuple[float, ...]


@dataclass(frozen=True)
class CaseFacts:
    """The facts of one case's files, as plain numbers."""

    case: str
    image_sha256: tuple[str, ...]
    label_sha256: tuple[str, ...]
    unit: str
    native_shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    spacing: tuple[float, float, float]
    # Shape and voxel size along the axes of `ORIENTATION`, or along the file's own axes if it has no physical spacing
    oriented_shape: tuple[int, int, int]
    oriented_spacing: tuple[float, float, float]
    dtype: str  # of the image
    intensity: tuple[ChannelIntensity, ...]  # statistics of each channel
    content_sha256: str  # hash of the voxels, independent of the file format and of the order of the channels
    channel_sha256: tuple[str, ...]  # and of each of several channels that does not have a single value
    # Largest difference between neighbouring slices along the coarsest axis, divided by the median difference
    steepest_jump: float
    decisions: tuple[tuple[str, str], ...]  # rule and text of every interpretation that may differ from the user's
    patient_hash: str | None
    label_values: dict[int, int] | None = None  # value -> number of voxels; None without a mask
    # Value -> number of pixels inside its regions, for masks of pictures with many greys
    label_regions: dict[int, int] = field(default_factory=dict)
    # Value -> centre along the oriented axes, in `unit` from the image centre
    label_centres: dict[int, tuple[float, float, float]] = field(default_factory=dict)
    palette: dict[int, int] = field(default_factory=dict)  # code of a colour -> index, for masks with a palette
    # Largest distance of a label from the image centre along the oriented axes, in `unit`; None without foreground
    half_extent: tuple[float, float, float] | None = None
    # Value -> fraction of its voxels in its largest connected part, without the value 0
    largest_parts: dict[int, float] = field(default_factory=dict)
    # Value -> fraction of that part left after each of `EROSIONS_MM`, for values that are one part
    eroded_parts: dict[int, tuple[float, ...]] = field(default_factory=dict)
    grid_distance: float = 0.0  # distance between the grids of image and mask, in voxels

    @property
    def values(self) -> dict[int, int]:
        """Number of voxels of every label value; empty without a mask."""
        return self.label_values or {}

    @property
    def num_channels(self) -> int:
        return len(self.intensity)

    @property
    def extent(self) -> tuple[float, ...]:
        """Size of the volume along the oriented axes, in `unit`."""
        return tuple(n * pixel for n, pixel in zip(self.oriented_shape, self.oriented_spacing, strict=True))

    def resampled_lengths(self, axes: Iterable[int], spacing: float | None) -> list[int]:
        """Pixels along oriented axes after resampling to a spacing; None keeps the native one."""
        return [resampled_length(self.oriented_shape[axis], self.oriented_spacing[axis], spacing) for axis in axes]

    def channels(self, number: int) -> tuple[ChannelIntensity, ...]:
        """Return the intensities of `number` channels; those of a grey picture are repeated."""
        return self.intensity * (number // self.num_channels)

    @classmethod
    def from_json(cls, data: dict[str, object]) -> "CaseFacts":
        """Read facts from JSON, in which tuples have become lists and label values have become texts."""
        fields: dict[str, Any] = {name: _restored(value) for name, value in data.items()}
        return cls(**fields)


def _restored(value: object) -> object:
    """Tuples instead of lists, and integers instead of texts of digits as keys."""
    if isinstance(value, list):
        return tuple(map(_restored, value))
    if isinstance(value, dict):
        return {int(key) if key.lstrip("-").isdigit() else key: _restored(item) for key, item in value.items()}
    return value
