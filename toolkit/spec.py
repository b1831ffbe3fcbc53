"""The preprocessing of a data set as data: decided once by `prepare`, then stored with the store, the run and the artefact."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from attunet.errors import InputError


@dataclass(frozen=True)
class PreprocessSpec:
    """Everything that turns a volume into network input, and logits back into labels on the volume's own grid.

    orientation: axis codes that the array is brought to (`"LPS"`: axis 0 runs to the patient's left, 1 to posterior, 2 to superior),
        or None for images without an affine, whose axes stay.
    slice_axis: which of the oriented axes slices are cut along; rows and columns of a slice are the two others, the later one as rows.
    spacing_mm: in-plane pixel size after resampling (rows and columns alike), or None to keep the native one.
    size: `(H, W)` of the training window, multiples of 16. Prediction never crops: a larger slice is run whole.
    normalization: "zscore" clips at `clip_percentiles` of the volume and scales to mean 0, standard deviation 1 per volume and channel;
        "ct" clips to `window` and scales it to [-1, 1]; "none" divides by the range of the dtype for integers and keeps floats.
    context_slices: odd; neighbouring slices given as channels, slice-major: channel index = slice offset * num_channels + channel.
    num_channels: channels of the source, so the network sees `num_channels * context_slices`.
    """

    orientation: str | None
    slice_axis: int
    spacing_mm: float | None
    size: tuple[int, int]
    normalization: Literal["zscore", "ct", "none"] = "zscore"
    clip_percentiles: tuple[float, float] = (0.5, 99.5)
    window: tuple[float, float] = (-160.0, 240.0)
    context_slices: int = 1
    num_channels: int = 1

    @property
    def in_channels(self) -> int:
        """Channels that the network sees."""
        return self.num_channels * self.context_slices

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "PreprocessSpec":
        names = {f.name for f in fields(cls)}
        if set(data) != names:
            raise InputError(f"preprocessing: expected the fields {sorted(names)}, got {sorted(data)}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)
