"""The sections of a configuration: every field with its default, its rule and its documentation."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self, TypeVar

from attunet.errors import InputError
from attunet.fields import Rule
from attunet.volumes.spec import MULTIPLE, Preprocessing

Auto = Literal["auto"]
Value = TypeVar("Value")

# Every network by the name that `model.name`, the command line and the benchmarks use: its module and class. Import
# paths, because the configuration works without torch.
MODELS = {
    "unet": "attunet.models.unet:UNet",
    "attention_unet": "attunet.models.attention_unet:AttentionUNet",
}


def _field(default: Value, rule: Rule, text: str) -> Value:
    return field(default=default, metadata={"rule": rule, "text": text})


def _probability(default: float, change: str) -> float:
    return _field(default, Rule(float, 0, 1), f"Probability per sample of {change}.")


def _range(default: tuple[float, float], text: str, low: float, high: float) -> tuple[float, float]:
    return _field(default, Rule(float, low, high, length=2, ordered=True), text)


@dataclass(frozen=True)
class Section:
    """A section of the configuration; checks every field when it is made."""

    NAME: ClassVar[str]

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, f.metadata["rule"].check(f"{self.NAME}.{f.name}", getattr(self, f.name)))


@dataclass(frozen=True)
class DataConfig(Section):
    """The preprocessing that the user chooses; `prepare` resolves it for all cases together."""

    NAME = "data"

    spacing_mm: float | Auto = _field(
        "auto", Rule(float, 0.01, 100, auto=True), "In-plane pixel size in mm after resampling; auto: the median."
    )
    size: int | tuple[int, int] | Auto = _field(
        "auto",
        Rule(int, 32, 4096, multiple_of=MULTIPLE, length=2, single=True, auto=True),
        (
            "Side of the square training window, or its rows and columns; auto: the smallest square that holds every "
            "label."
        ),
    )
    normalization: Literal["zscore", "ct", "none", "auto"] = _field(
        "auto",
        Rule(str, choices=("zscore", "ct", "none"), auto=True),
        "Intensity scaling; auto: ct for Hounsfield units, else zscore.",
    )
    clip_percentiles: tuple[float, float] = _field(
        (0.5, 99.5), Rule(float, 0, 100, length=2, rising=True), "Percentiles that intensities are clipped at (zscore)."
    )
    window: tuple[float, float] = _field(
        (-160.0, 240.0),
        Rule(float, -1e6, 1e6, length=2, rising=True),
        "Lower and upper intensity of the window (ct), in HU.",
    )
    context_slices: int = _field(1, Rule(int, 1, 5, odd=True), "Neighbouring slices given as channels.")
    largest_component: bool | Auto = _field(
        "auto",
        Rule(bool, auto=True),
        "Label maps keep only the largest connected part of every class; auto: if all masks are of one part per class.",
    )
    component_erosion_mm: float | Auto = _field(
        "auto",
        Rule(float, 0, 100, auto=True),
        "Parts joined to the largest one by a neck of less than twice this width are removed too, 0: none; auto: the "
        "widest that keeps the "
        "masks whole.",
    )
    slice_axis: int | Auto = _field(
        "auto", Rule(int, 0, 2, auto=True), "Slice axis after orientation; auto: the coarsest."
    )

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
        """The section without `auto` that stands for a resolved preprocessing;
        `spacing_mm` stays "auto" without physical spacing.
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


@dataclass(frozen=True)
class ModelConfig(Section):
    """The network."""

    NAME = "model"

    name: str = _field("attention_unet", Rule(str, choices=tuple(MODELS)), "The network.")
    base_width: int | Auto = _field(
        "auto",
        Rule(int, 4, 128, auto=True),
        "Channels of the first level, doubled at each level below; auto: 16 on a CPU, 64 or 32 on a GPU.",
    )
    depth: int = _field(4, Rule(int, 1, 4), "Number of down-samplings.")
    blocks: Literal["plain", "residual"] = _field(
        "plain",
        Rule(str, choices=("plain", "residual")),
        "Blocks of the encoder below its first level; parameters are the same.",
    )
    deep_supervision: bool = _field(
        False,
        Rule(bool),
        "Train heads on the decoder's coarser levels too, with weights 1/2, 1/4, ...; they are no part of the result.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.deep_supervision and self.depth < 2:
            raise InputError(f"model.deep_supervision: needs a model.depth of at least 2, got {self.depth}")


@dataclass(frozen=True)
class AugmentConfig(Section):
    """Random changes of training samples."""

    NAME = "augment"

    enabled: bool = _field(True, Rule(bool), "Whether training samples are augmented.")
    spatial_probability: float = _probability(0.8, "rotation, scale and shift together")
    rotation_degrees: float = _field(20.0, Rule(float, 0, 180), "Largest rotation in either direction.")
    scale: tuple[float, float] = _range((0.8, 1.25), "Range of the magnification.", 0.1, 10)
    elastic_probability: float = _probability(0.2, "an elastic deformation")
    brightness_probability: float = _probability(0.3, "a brightness shift")
    brightness: float = _field(0.3, Rule(float, 0, 10), "Largest shift in either direction, in standard deviations.")
    contrast_probability: float = _probability(0.3, "a change of contrast")
    contrast: tuple[float, float] = _range(
        (0.7, 1.4), "Range of the factor on the deviation from the slice's mean.", 0.01, 100
    )
    gamma_probability: float = _probability(0.3, "a gamma curve on the slice's own range")
    gamma: tuple[float, float] = _range((0.7, 1.5), "Range of the exponent.", 0.01, 100)
    bias_field_probability: float = _probability(0.3, "a smooth multiplicative field (coil sensitivity)")
    bias_field: float = _field(
        0.3, Rule(float, 0, 3), "Standard deviation of the field's logarithm at its coarse nodes."
    )
    noise_probability: float = _probability(0.15, "Gaussian noise")
    noise: tuple[float, float] = _range(
        (0.0, 0.15), "Range of its standard deviation, in standard deviations of the volume.", 0, 10
    )
    low_resolution_probability: float = _probability(0.15, "a lower resolution, sampled down and up again")
    low_resolution: tuple[float, float] = _range((1.0, 2.0), "Range of the down-sampling factor.", 1, 8)


@dataclass(frozen=True)
class OptimConfig(Section):
    """Steps, learning rate and loss."""

    NAME = "optim"

    epochs: float | Auto = _field(
        "auto", Rule(float, 0.01, 1e6, auto=True), "Passes over the training slices; auto: 100 or by steps."
    )
    batch_size: int | Auto = _field(
        "auto", Rule(int, 1, 65536, auto=True), "Slices per step over all processes; auto: by their size."
    )
    accumulate_steps: int = _field(
        1, Rule(int, 1, 65536), "Parts in which a process computes its share of a batch, to need less memory."
    )
    lr: float = _field(
        1.5e-3, Rule(float, 0, 10), "Peak learning rate of AdamW for a batch of lr_reference_batch slices."
    )
    lr_reference_batch: int = _field(
        8,
        Rule(int, 0, 65536),
        "For another batch_size, lr is multiplied by the square root of their quotient; 0: never.",
    )
    init_lr_factor: float = _field(1.0, Rule(float, 0, 10), "Factor of the rate for weights that --init carried over.")
    freeze: Literal["none", "encoder"] = _field(
        "none", Rule(str, choices=("none", "encoder")), "Part of the network that keeps its weights."
    )
    weight_decay: float = _field(
        1e-2, Rule(float, 0, 10), "Decoupled weight decay on convolution weights; 0 makes AdamW plain Adam."
    )
    schedule: Literal["one_cycle", "poly", "constant"] = _field(
        "one_cycle", Rule(str, choices=("one_cycle", "poly", "constant")), "Learning rate after warm-up."
    )
    warmup_fraction: float = _field(0.1, Rule(float, 0, 1), "Share of the steps in which the rate rises to its peak.")
    grad_clip_norm: float = _field(12.0, Rule(float, 0, 1e9), "Gradient norm is clipped to this; 0 leaves it.")
    ema_decay: float = _field(
        0.99, Rule(float, 0, 1), "Decay per step of the averaged weights, which are the ones exported."
    )
    dice_weight: float = _field(1.0, Rule(float, 0, 1e3), "Weight of the logarithmic Dice loss.")
    cross_entropy_weight: float = _field(1.0, Rule(float, 0, 1e3), "Weight of the cross entropy.")
    class_weights: Literal["none", "inverse_frequency"] = _field(
        "none", Rule(str, choices=("none", "inverse_frequency")), "Weights in the cross entropy."
    )


@dataclass(frozen=True)
class RunConfig(Section):
    """Seed, arithmetic and records of a training."""

    NAME = "run"

    seed: int = _field(0, Rule(int, 0, 2**31 - 1), "Seed of weights, sample order and augmentation.")
    mixed_precision: Literal["no", "bf16", "fp16", "auto"] = _field(
        "auto", Rule(str, choices=("no", "bf16", "fp16"), auto=True), "Arithmetic; auto: bf16 where fast."
    )
    channels_last: bool = _field(True, Rule(bool), "Memory layout of activations.")
    compile: bool = _field(False, Rule(bool), "torch.compile the network.")
    cuda_graph: Literal["on", "off", "auto"] = _field(
        "auto",
        Rule(str, choices=("on", "off"), auto=True),
        "Replay the step as one CUDA graph; auto: on one GPU with the slices in its memory, except in fp16.",
    )
    sync_batch_norm: bool = _field(False, Rule(bool), "Batch norm over the slices of all processes.")
    activation_checkpointing: bool = _field(
        False, Rule(bool), "Keep fewer activations and compute them again: less memory, more time."
    )
    resident_gb: float | Auto = _field(
        "auto",
        Rule(float, 0, 1e6, auto=True),
        (
            "Memory of a process's device for slices, in 10^9 bytes; if they do not fit they are streamed; auto: 40 % "
            "of "
            "the free memory."
        ),
    )
    tracker: Literal["none", "wandb", "tensorboard", "mlflow"] = _field(
        "none",
        Rule(str, choices=("none", "wandb", "tensorboard", "mlflow")),
        "Experiment tracker, besides metrics.jsonl.",
    )
    minutes: float = _field(
        0.0,
        Rule(float, 0, 1e6),
        "Minutes that the whole training may take, which set the number of steps in place of epochs; 0: epochs.",
    )
    project: str = _field("attunet", Rule(str), "Project name at the tracker.")
    log_every: int = _field(10, Rule(int, 1, 10**6), "Steps between lines in metrics.jsonl.")
    validate_every_epochs: float | Auto = _field(
        "auto", Rule(float, 0.01, 1e6, auto=True), "Epochs between validations; auto: ten in a run."
    )
    checkpoint_every_minutes: float = _field(5.0, Rule(float, 0, 1e6), "Minutes between checkpoints.")
    checkpoint_every_steps: int = _field(0, Rule(int, 0, 10**9), "Steps between checkpoints; 0: by time alone.")
    snapshots: int = _field(
        0,
        Rule(int, 0, 5),
        "Averaged weights to keep for an ensemble: those of the end, and of 10 %, 20 %, ... of the steps before.",
    )
    timeout_minutes: float = _field(
        10.0, Rule(float, 0.05, 1e4), "Minutes that a process waits for the others before it gives up."
    )
    device: Literal["cpu", "cuda", "auto"] = _field(
        "auto", Rule(str, choices=("cpu", "cuda"), auto=True), "Device of a training in one process."
    )


def _resolved(section: type[Section], name: str) -> Any:
    """A required field with the rule of the section's own, but for "auto"."""
    (base,) = (f for f in dataclasses.fields(section) if f.name == name)
    return field(
        metadata={**base.metadata, "rule": dataclasses.replace(base.metadata["rule"], auto=False)}, kw_only=True
    )


@dataclass(frozen=True)
class ResolvedModelConfig(ModelConfig):
    base_width: int = _resolved(ModelConfig, "base_width")


@dataclass(frozen=True)
class ResolvedOptimConfig(OptimConfig):
    epochs: float = _resolved(OptimConfig, "epochs")
    batch_size: int = _resolved(OptimConfig, "batch_size")
