"""The configuration of a data set and a training: frozen dataclasses, read from TOML, every field checked and documented here.

`auto` values are settled by `prepare` (for `[data]`) and by the start of a training, and are written out in the run's `config.toml`.
"""

import dataclasses
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attunet.errors import InputError
from attunet.fields import Rule
from attunet.volumes.spec import UNTOUCHED, Postprocessing

# Every network by the name that `model.name`, the command line and the benchmarks use: its module and class. Import paths, because
# the configuration works without torch.
MODELS = {
    "unet": "attunet.models.unet:UNet",
    "attention_unet": "attunet.models.attention_unet:AttentionUNet",
}


def _field(default: Any, kind: type, text: str, **rule: Any) -> Any:
    return field(default=default, metadata={"rule": Rule(kind, text, **rule)})


def _chance(default: float, what: str) -> Any:
    return _field(default, float, f"Probability per sample of {what}.", low=0, high=1)


def _span(default: tuple[float, float], text: str, low: float, high: float) -> Any:
    return _field(default, float, text, length=2, low=low, high=high)


def as_pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of `data.size` once it is settled."""
    return (size, size) if isinstance(size, int) else size


class Section:
    """A section of the configuration: checks every field when it is made."""

    def __post_init__(self) -> None:
        section = type(self).__name__.removesuffix("Config").lower()
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            object.__setattr__(self, f.name, f.metadata["rule"].check(f"{section}.{f.name}", getattr(self, f.name)))


@dataclass(frozen=True)
class DataConfig(Section):
    spacing_mm: Any = _field("auto", float, "In-plane pixel size in mm after resampling; auto: the median.", low=0.01, high=100, auto=True)
    size: Any = _field(
        "auto",
        int,
        "Side of the square training window, or its rows and columns, multiples of 16; auto: the square that holds every label.",
        low=32,
        high=4096,
        length=2,
        single=True,
        auto=True,
    )
    normalization: Any = _field("auto", str, "Intensity scaling; auto looks at the source.", choices=("zscore", "ct", "none"), auto=True)
    clip_percentiles: tuple[float, float] = _span((0.5, 99.5), "Percentiles that intensities are clipped at (zscore).", 0, 100)
    window: tuple[float, float] = _span((-160.0, 240.0), "Lower and upper intensity of the window (ct), in HU.", -1e6, 1e6)
    context_slices: int = _field(1, int, "Neighbouring slices given as channels: 1, 3 or 5.", low=1, high=5)
    largest_component: Any = _field(
        "auto", bool, "Label maps keep the largest connected part of every class alone; auto: where all masks show that.", auto=True
    )
    component_erosion_mm: Any = _field(
        "auto",
        float,
        "What a neck of less than twice this width joins to the largest part goes too, 0: nothing; auto: as far as masks allow.",
        low=0,
        high=100,
        auto=True,
    )
    slice_axis: Any = _field("auto", int, "Slice axis after orientation; auto: the coarsest.", low=0, high=2, auto=True)

    @property
    def postprocessing(self) -> Postprocessing:
        """As settled; nothing in what was prepared before there were these fields."""
        if self.largest_component is not True:
            return UNTOUCHED
        return Postprocessing(True, 0.0 if self.component_erosion_mm == "auto" else self.component_erosion_mm)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size != "auto":
            rows, columns = as_pair(self.size)
            if rows % 16 or columns % 16:
                raise InputError(f"data.size: must be multiples of 16, got {rows} × {columns}")
            object.__setattr__(self, "size", rows if rows == columns else (rows, columns))  # a square is written in one way
        if self.context_slices % 2 == 0:
            raise InputError(f"data.context_slices: must be odd, got {self.context_slices}")
        if self.largest_component is False and self.component_erosion_mm not in ("auto", 0):
            erosion_mm = self.component_erosion_mm
            raise InputError(f'data.component_erosion_mm: must be 0 or "auto" with data.largest_component false, got {erosion_mm:g}')
        for name in ("clip_percentiles", "window"):
            low, high = getattr(self, name)
            if low >= high:
                raise InputError(f"data.{name}: the first number must be below the second, got {[low, high]}")


@dataclass(frozen=True)
class ModelConfig(Section):
    name: str = _field("attention_unet", str, "The network.", choices=tuple(MODELS))
    base_width: Any = _field(
        "auto",
        int,
        "Channels of the first level, doubled at each level below; auto: 16 on a CPU, 64 or 32 on a GPU.",
        low=4,
        high=128,
        auto=True,
    )
    depth: int = _field(4, int, "Number of down-samplings.", low=1, high=4)


@dataclass(frozen=True)
class AugmentConfig(Section):
    enabled: bool = _field(True, bool, "Whether training samples are augmented.")
    spatial_probability: float = _chance(0.8, "rotation, scale and shift together")
    rotation_degrees: float = _field(20.0, float, "Largest rotation either way.", low=0, high=180)
    scale: tuple[float, float] = _span((0.8, 1.25), "Range of the magnification.", 0.1, 10)
    shift_fraction: float = _field(0.08, float, "Largest shift either way, as a share of the side.", low=0, high=1)
    elastic_probability: float = _chance(0.2, "an elastic deformation")
    elastic_magnitude: float = _field(0.012, float, "Deviation of the coarse displacement, as a share of the side.", low=0, high=0.2)
    brightness_probability: float = _chance(0.3, "a brightness shift")
    brightness: float = _field(0.3, float, "Largest shift either way, in standard deviations.", low=0, high=10)
    contrast_probability: float = _chance(0.3, "a change of contrast")
    contrast: tuple[float, float] = _span((0.7, 1.4), "Range of the factor on the deviation from the slice's mean.", 0.01, 100)
    gamma_probability: float = _chance(0.3, "a gamma curve on the slice's own range")
    gamma: tuple[float, float] = _span((0.7, 1.5), "Range of the exponent.", 0.01, 100)
    bias_field_probability: float = _chance(0.3, "a smooth multiplicative field (coil sensitivity)")
    bias_field: float = _field(0.3, float, "Standard deviation of the field's logarithm at its coarse nodes.", low=0, high=3)
    noise_probability: float = _chance(0.15, "Gaussian noise")
    noise: tuple[float, float] = _span((0.0, 0.15), "Range of its standard deviation, in standard deviations of the volume.", 0, 10)
    low_resolution_probability: float = _chance(0.15, "a lower resolution, sampled down and up again")
    low_resolution: tuple[float, float] = _span((1.0, 2.0), "Range of the down-sampling factor.", 1, 8)


@dataclass(frozen=True)
class OptimConfig(Section):
    epochs: Any = _field("auto", float, "Passes over the training slices; auto: 100 or by steps.", low=0.01, high=1e6, auto=True)
    batch_size: Any = _field("auto", int, "Slices per step over all processes; auto: by their size.", low=1, high=65536, auto=True)
    accumulate_steps: int = _field(1, int, "Parts that a process computes its share of a batch in, to need less memory.", low=1, high=65536)
    optimizer: str = _field("adamw", str, "The optimizer.", choices=("adamw", "adam"))
    lr: float = _field(1.5e-3, float, "Peak learning rate for a batch of lr_reference_batch slices.", low=0, high=10)
    lr_reference_batch: int = _field(
        8, int, "For another batch_size, lr is multiplied by the square root of their quotient; 0: never.", low=0, high=65536
    )
    weight_decay: float = _field(1e-2, float, "Decoupled weight decay on convolution weights (adamw).", low=0, high=10)
    schedule: str = _field("one_cycle", str, "Learning rate after warm-up.", choices=("one_cycle", "poly", "constant"))
    warmup_fraction: float = _field(0.1, float, "Share of the steps in which the rate rises to its peak.", low=0, high=1)
    grad_clip_norm: float = _field(12.0, float, "Gradient norm is clipped to this; 0 leaves it.", low=0, high=1e9)
    ema_decay: float = _field(0.99, float, "Decay per step of the averaged weights, which are the ones exported.", low=0, high=1)
    dice_weight: float = _field(1.0, float, "Weight of the logarithmic Dice loss.", low=0, high=1e3)
    cross_entropy_weight: float = _field(1.0, float, "Weight of the cross entropy.", low=0, high=1e3)
    class_weights: str = _field("none", str, "Weights in the cross entropy.", choices=("none", "inverse_frequency"))


@dataclass(frozen=True)
class RunConfig(Section):
    seed: int = _field(0, int, "Seed of weights, sample order and augmentation.", low=0, high=2**31 - 1)
    mixed_precision: Any = _field("auto", str, "Arithmetic; auto: bf16 where fast.", choices=("no", "bf16", "fp16"), auto=True)
    channels_last: bool = _field(True, bool, "Memory layout of activations.")
    compile: bool = _field(False, bool, "torch.compile the network.")
    sync_batch_norm: bool = _field(False, bool, "Batch norm over the slices of all processes; on GPUs alone.")
    activation_checkpointing: bool = _field(False, bool, "Keep fewer activations and compute them again: less memory, more time.")
    resident_gb: Any = _field(
        "auto",
        float,
        "Memory of a process's device for slices, in 10^9 bytes; what does not fit is streamed; auto: 40 % of what is free.",
        low=0,
        high=1e6,
        auto=True,
    )
    tracker: str = _field("none", str, "Where figures go besides metrics.jsonl.", choices=("none", "wandb"))
    project: str = _field("attunet", str, "Project name at the tracker.")
    log_every: int = _field(10, int, "Steps between lines in metrics.jsonl.", low=1, high=10**6)
    validate_every_epochs: Any = _field("auto", float, "Epochs between validations; auto: ten in a run.", low=0.01, high=1e6, auto=True)
    checkpoint_every_minutes: float = _field(5.0, float, "Minutes between checkpoints.", low=0, high=1e6)
    checkpoint_every_steps: int = _field(0, int, "Steps between checkpoints; 0: by time alone.", low=0, high=10**9)
    timeout_minutes: float = _field(10.0, float, "How long a process waits for the others before it gives up.", low=0.05, high=1e4)
    device: str = _field("auto", str, "Device of a training in one process.", choices=("cpu", "cuda"), auto=True)


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig = OptimConfig()
    run: RunConfig = RunConfig()

    def to_json(self) -> dict[str, Any]:
        return {s: {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()} for s, values in dataclasses.asdict(self).items()}

    def to_toml(self) -> str:
        # Strings, numbers, booleans and lists of them are written alike in JSON and TOML.
        sections = ("\n".join([f"[{s}]", *(f"{k} = {json.dumps(v)}" for k, v in values.items())]) for s, values in self.to_json().items())
        return "\n\n".join(sections) + "\n"

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = "config") -> "Config":
        sections = {f.name: f.type for f in dataclasses.fields(cls)}
        made = {}
        for name, values in data.items():
            if name not in sections or not isinstance(values, Mapping):
                raise InputError(f"{where}: sections are {', '.join(f'[{s}]' for s in sections)}, got {name!r}")
            section: Any = sections[name]
            known = [f.name for f in dataclasses.fields(section)]
            if unknown := sorted(set(values) - set(known)):
                raise InputError(f"{where}: [{name}] has no field {unknown[0]!r}; it has {', '.join(known)}")
            try:
                made[name] = section(**values)
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
        return cls(**made)


def load_config(path: Path | None, settings: Iterable[str] = ()) -> Config:
    """The configuration in a TOML file (or the defaults), with `section.field=value` settings applied over it.

    Raises InputError naming the file, the field, the rule and the value.
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"{path}: cannot be read as TOML: {error}") from None
    config = Config.from_json(data, str(path))
    for setting in settings:
        config = _with_setting(config, setting)
    return config


def _with_setting(config: Config, setting: str) -> Config:
    name, equals, text = setting.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot):
        raise InputError(f"--set: must be section.field=value, got {setting!r}")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string
    data = config.to_json()
    data.setdefault(section, {})[key] = value
    return Config.from_json(data, "--set")
