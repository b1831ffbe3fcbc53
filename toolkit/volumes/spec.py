"""Pre- and post-processing of a data set: resolved once by `prepare`, then kept in store, checkpoint and artefact."""

import hashlib
import itertools
import json
from dataclasses import asdict, dataclass
from typing import Literal

from attunet.errors import InputError
from attunet.fields import Fields, Rule

MULTIPLE = 16  # divisor of the heights and widths of slices: the deepest network halves them four times
MAX_SIDE = 65536  # pixels of a fixed input
Normalization = Literal["zscore", "ct", "none"]


@dataclass(frozen=True, order=True)
class Postprocessing:
    """Settings of `attunet.volumes.postprocess.postprocess`. Ordered, so that max() picks the stronger."""

    largest_component: bool = False  # True keeps only the largest connected part of every foreground class
    # Half of the width below which a neck is cut; parts joined by such a neck are removed too. 0 cuts none. The unit is
    # pixels for images without physical spacing.
    erosion_mm: float = 0.0

    @property
    def words(self) -> str:
        """Key under which scores are stored; independent of the unit."""
        return self.words_in("mm")

    def words_in(self, unit: str) -> str:
        """Describe the settings as a noun phrase; `unit` is `PreprocessSpec.unit`."""
        if not self.largest_component:
            return "all components"
        return "largest component" + (f", necks under {2 * self.erosion_mm:g} {unit} cut" if self.erosion_mm else "")

    @classmethod
    def from_json(cls, at: Fields) -> "Postprocessing":
        """Read the JSON of `dataclasses.asdict`; raises InputError for anything else."""
        return cls(at.flag("largest_component"), at.get("erosion_mm", Rule(float, 0, 100)))


UNTOUCHED, LARGEST = Postprocessing(), Postprocessing(largest_component=True)


@dataclass(frozen=True)
class PreprocessSpec:
    """Everything that turns a volume into network input, and logits back into labels on the volume's own grid."""

    # Axis codes of the oriented array (`"LPS"`: axis 0 runs to the patient's left, 1 to posterior, 2 to superior); None
    # for images without an affine, whose axes are kept
    orientation: str | None
    # The oriented axis across which slices are cut; the row of a slice counts along the later of the two other axes
    slice_axis: int
    spacing_mm: float | None  # in-plane pixel size after resampling, rows and columns alike; None keeps the native one
    # `(H, W)` of the training window, multiples of 16; prediction pads smaller slices to it, and runs larger ones whole
    size: tuple[int, int]
    # "zscore" clips at `clip_percentiles` of the volume and scales to mean 0, standard deviation 1 per volume and
    # channel; "ct" clips to `window` and scales it to [-1, 1]; "none" divides by the range of the dtype for integers
    # and keeps floats
    normalization: Normalization = "zscore"
    clip_percentiles: tuple[float, float] = (0.5, 99.5)  # rising
    window: tuple[float, float] = (-160.0, 240.0)  # lower and upper intensity, in HU
    # Odd number of slices (a slice and its neighbours) that are given as channels, slice-major:
    # channel = slice offset * num_channels + channel
    context_slices: int = 1
    num_channels: int = 1  # of the source; the network gets `num_channels * context_slices`

    @property
    def in_channels(self) -> int:
        """Channels of the network's input."""
        return self.num_channels * self.context_slices

    @property
    def unit(self) -> str:
        """Unit of lengths: images without an affine have no physical spacing."""
        return "mm" if self.orientation else "pixels"

    @property
    def sha256(self) -> str:
        """Hash of all fields: arrays with the same hash were prepared with the same settings."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, at: Fields) -> "PreprocessSpec":
        """Raises InputError naming the field for anything that `to_json` would not have written."""
        if unknown := sorted(set(at.data) - set(RULES)):
            raise InputError(f"{at.name(unknown[0])}: must be one of {', '.join(RULES)}")
        return cls(**{name: at.get(name, rule) for name, rule in RULES.items()})


ORIENTATIONS = tuple(
    "".join(c) for axes in itertools.permutations(("LR", "AP", "IS")) for c in itertools.product(*axes)
)
RULES = {
    "orientation": Rule(str, choices=ORIENTATIONS, noun="three axis codes such as LPS", null=True),
    "slice_axis": Rule(int, 0, 2),
    "spacing_mm": Rule(float, 1e-3, 1e3, null=True),
    "size": Rule(int, MULTIPLE, MAX_SIDE, multiple_of=MULTIPLE, length=2),
    "normalization": Rule(str, choices=("zscore", "ct", "none")),
    "clip_percentiles": Rule(float, 0, 100, length=2, rising=True),
    "window": Rule(float, -1e9, 1e9, length=2, rising=True),
    "context_slices": Rule(int, 1, 99, odd=True),
    "num_channels": Rule(int, 1, 256),
}


@dataclass(frozen=True)
class Preprocessing:
    """The resolved pre- and post-processing of a data set, the same in its store, checkpoints and artefacts."""

    spec: PreprocessSpec
    postprocessing: Postprocessing = UNTOUCHED

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, at: Fields) -> "Preprocessing":
        """Raises InputError naming the field for anything that `to_json` would not have written."""
        return cls(PreprocessSpec.from_json(at.inner("spec")), Postprocessing.from_json(at.inner("postprocessing")))
