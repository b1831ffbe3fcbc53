"""Facts of a case: the preprocessing is resolved by them, and the checks judge them."""

from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from attunet.sources.read_case import joined_hash

PERCENTILES = (0.5, 5.0, 25.0, 50.0, 75.0, 95.0, 99.5)
ORIENTATION = "LPS"
EROSIONS_MM = tuple(range(1, 9))


class ChannelIntensity(TypedDict):
    """`percentiles`: at `PERCENTILES`."""

    min: float
    max: float
    mean: float
    std: float
    percentiles: tuple[float, ...]


@dataclass(frozen=True)
class CaseFacts:
    """The facts of one case's files, as plain numbers.

    Args:
        oriented_shape, oriented_spacing: along the axes of `ORIENTATION` (the file's own where it has no spacing).
        dtype: of the image.
        intensity: for each channel min, max, mean, std and the `PERCENTILES`.
        content_sha256: of the voxels, whatever their file's form.
        steepest_jump: the largest difference between neighbouring slices along the coarsest axis, over the median one.
        label_values: value -> voxels, None without a mask.
        label_regions: value -> pixels inside its regions, of pictures' masks with many greys.
        label_centres: value -> centre in these axes, in `unit` from the image centre.
        palette: code of a colour -> index, of masks with a palette.
        half_extent: how far labels reach from the image centre along these axes, in `unit`, None without foreground.
        largest_parts: value -> the largest connected part's share of its voxels, without 0.
        eroded_parts: value -> the share of that part left after each of `EROSIONS_MM`; values that are not one part are left out.
        grid_distance: between image and mask, in voxels.
        decisions: rule and text of every reading that could be another.
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
        """The intensities of `number` channels; a grey picture's are the same in each."""
        return self.intensity * (number // self.num_channels)

    @property
    def joined_image_sha256(self) -> str:
        return joined_hash(self.image_sha256)

    @property
    def joined_label_sha256(self) -> str | None:
        return joined_hash(self.label_sha256) if self.label_sha256 else None

    def to_json(self) -> dict[str, object]:
        """The fields as plain JSON values; `from_json` reads them again."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "CaseFacts":
        """The facts of `to_json`, after JSON has made lists of tuples and text of the label values."""
        values, centres = data["label_values"], data["label_centres"]
        restored: dict[str, Any] = {
            **{name: _tuples(value) for name, value in data.items()},
            "intensity": tuple({name: _tuples(value) for name, value in channel.items()} for channel in data["intensity"]),
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
