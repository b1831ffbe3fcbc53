"""Facts of a case, from which the preprocessing is resolved and on which the checks work."""

from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from attunet.sources.case_files import joined_hash

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
    """The facts of one case's files, as plain numbers.

    Args:
        oriented_shape, oriented_spacing: shape and voxel size along the axes of `ORIENTATION`, or along the file's own
            axes if it has no physical spacing.
        dtype: data type of the image.
        intensity: statistics of each channel.
        content_sha256: hash of the voxels, independent of the file format.
        steepest_jump: largest difference between neighbouring slices along the coarsest axis, divided by the median
            difference.
        label_values: value -> number of voxels; None without a mask.
        label_regions: value -> number of pixels inside its regions, for masks of pictures with many greys.
        label_centres: value -> centre along the oriented axes, in `unit` from the image centre.
        palette: code of a colour -> index, for masks with a palette.
        half_extent: largest distance of a label from the image centre along the oriented axes, in `unit`; None without
            foreground.
        largest_parts: value -> fraction of its voxels in its largest connected part, without the value 0.
        eroded_parts: value -> fraction of that part left after each of `EROSIONS_MM`, for values that are one part.
        grid_distance: distance between the grids of image and mask, in voxels.
        decisions: rule and text of every interpretation that may differ from the user's.
    """

    case: str
    image_sha256: tuple[str, ...]
    label_sha256: tuple[str, ...]
    unit: str
    native_shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    spacing: tuple[float, float, float]
    oriented_shape: tuple[int, int, int]
    oriented_spacing: tuple[float, float, float]
    dtype: str
    intensity: tuple[ChannelIntensity, ...]
    content_sha256: str
    steepest_jump: float
    label_values: dict[int, int] | None
    label_regions: dict[int, int]
    label_centres: dict[int, tuple[float, float, float]]
    palette: dict[int, int]
    half_extent: tuple[float, float, float] | None
    largest_parts: dict[int, float]
    eroded_parts: dict[int, tuple[float, ...]]
    grid_distance: float
    decisions: tuple[tuple[str, str], ...]
    patient_hash: str | None

    @property
    def num_channels(self) -> int:
        return len(self.intensity)

    def channels(self, number: int) -> tuple[ChannelIntensity, ...]:
        """Return the intensities of `number` channels; those of a grey picture are repeated."""
        return self.intensity * (number // self.num_channels)

    @property
    def joined_image_sha256(self) -> str:
        return joined_hash(self.image_sha256)

    @property
    def joined_label_sha256(self) -> str | None:
        return joined_hash(self.label_sha256) if self.label_sha256 else None

    def to_json(self) -> dict[str, object]:
        """Return the fields as plain JSON values, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "CaseFacts":
        """Read the JSON of `to_json`, in which tuples have become lists and label values have become text."""
        values, centres = data["label_values"], data["label_centres"]
        restored: dict[str, Any] = {
            **{name: _tuples(value) for name, value in data.items()},
            "intensity": tuple(
                {name: _tuples(value) for name, value in channel.items()} for channel in data["intensity"]
            ),
            "label_values": None if values is None else {int(value): count for value, count in values.items()},
            "label_centres": {int(value): _tuples(centre) for value, centre in centres.items()},
            "label_regions": {int(value): count for value, count in data["label_regions"].items()},
            "palette": {int(code): index for code, index in data["palette"].items()},
            "largest_parts": {int(value): share for value, share in data["largest_parts"].items()},
            "eroded_parts": {int(value): _tuples(shares) for value, shares in data["eroded_parts"].items()},
        }
        return cls(**restored)


def _tuples(value: object) -> object:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
