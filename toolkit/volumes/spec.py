"""Pre- and postprocessing of a data set as data: decided once by `prepare`, then stored with the store, the run and the artefact."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from attunet.errors import InputError


@dataclass(frozen=True, order=True)
class Postprocessing:
    """How label maps are finished, see `attunet.volumes.postprocess.postprocess`; the simpler way is the lesser.

    largest_component: every foreground class keeps its largest connected part alone.
    erosion_mm: what a neck of less than twice this width joins to that part goes as well; 0: nothing more. Pixels without physical spacing.
    """

    largest_component: bool = False
    erosion_mm: float = 0.0

    @property
    def words(self) -> str:
        """A name for it, which scores are kept by whatever the unit."""
        return self.words_in("mm")

    def words_in(self, unit: str) -> str:
        """unit: `PreprocessSpec.unit`."""
        if not self.largest_component:
            return "all components"
        return "largest component" + (f", necks under {2 * self.erosion_mm:g} {unit} cut" if self.erosion_mm else "")


UNTOUCHED, LARGEST = Postprocessing(), Postprocessing(largest_component=True)


@dataclass(frozen=True)
class PreprocessSpec:
    """Everything that turns a volume into network input, and logits back into labels on the volume's own grid.

    orientation: axis codes that the array is brought to (`"LPS"`: axis 0 runs to the patient's left, 1 to posterior, 2 to superior),
        or None for images without an affine, whose axes stay.
    slice_axis: which of the oriented axes slices are cut along; rows and columns of a slice are the two others, the later one as rows.
    spacing_mm: in-plane pixel size after resampling (rows and columns alike), or None to keep the native one.
    size: `(H, W)` of the training window, multiples of 16. Prediction pads smaller slices to it, and runs larger ones whole.
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

    @property
    def unit(self) -> str:
        """Of lengths: images without an affine have no physical spacing."""
        return "mm" if self.orientation else "pixels"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "PreprocessSpec":
        names = {f.name for f in fields(cls)}
        if set(data) != names:
            raise InputError(f"preprocessing: expected the fields {sorted(names)}, got {sorted(data)}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        for name, (holds, rule) in _RULES.items():
            if not holds(values[name]):
                raise InputError(f"preprocessing.{name}: must be {rule}, got {str(values[name])[:80]!r}")
        return cls(**values)


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _span(value: Any, low: float, high: float) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_number(v, low, high) for v in value) and value[0] < value[1]


def _orientation(value: Any) -> bool:
    return value is None or (isinstance(value, str) and sorted(min(c, _OPPOSITE.get(c, c)) for c in value) == ["A", "I", "L"])


def _size(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(_whole(v, 16, 65536) and v % 16 == 0 for v in value)


_OPPOSITE = {"R": "L", "P": "A", "S": "I"}
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "orientation": (_orientation, "three axis codes such as LPS, or null"),
    "slice_axis": (lambda v: _whole(v, 0, 2), "0, 1 or 2"),
    "spacing_mm": (lambda v: v is None or _number(v, 1e-3, 1e3), "a number from 0.001 to 1000, or null"),
    "size": (_size, "two multiples of 16"),
    "normalization": (lambda v: v in ("zscore", "ct", "none"), "zscore, ct or none"),
    "clip_percentiles": (lambda v: _span(v, 0, 100), "two rising numbers from 0 to 100"),
    "window": (lambda v: _span(v, -1e9, 1e9), "two rising numbers"),
    "context_slices": (lambda v: _whole(v, 1, 99) and v % 2 == 1, "an odd number from 1 to 99"),
    "num_channels": (lambda v: _whole(v, 1, 256), "an integer from 1 to 256"),
}
