"""The sections of a configuration that belong to a training."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from attunet.config.section import Auto, Section, setting
from attunet.errors import InputError

# Every network by the name that `model.name`, the command line and the benchmarks use: its module and class. Import
# paths, because the configuration works without torch.
MODELS = {"unet": "attunet.models.unet:UNet", "attention_unet": "attunet.models.attention_unet:AttentionUNet"}


def _probability(default: float, change: str) -> float:
    return setting(default, f"Probability per sample of {change}.", 0, 1)


def _range(default: tuple[float, float], text: str, low: float, high: float) -> tuple[float, float]:
    return setting(default, text, low, high, ordered=True)


@dataclass(frozen=True)
class ModelConfig(Section):
    """The network."""

    NAME = "model"

    name: str = setting("attention_unet", "The network.", choices=tuple(MODELS))
    base_width: int | Auto = setting(
        "auto",
        "Channels of the first level, doubled at each level below; auto: 16 on a CPU, 64 or 32 on a GPU.",
        4,
        128,
    )
    depth: int = setting(4, "Number of down-samplings.", 1, 4)
    blocks: Literal["plain", "residual"] = setting(
        "plain", "Blocks of the encoder below its first level; parameters are the same."
    )
    deep_supervision: bool = setting(
        False,
        "Train heads on the decoder's coarser levels too, with weights 1/2, 1/4, ...; they are no part of the result.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.deep_supervision and self.depth < 2:
            raise InputError(f"model.deep_supervision: needs a model.depth of at least 2, got {self.depth}")


@dataclass(frozen=True)
class AugmentConfig(Section):
    """Random changes of training samples: `NAME_probability` is that of `attunet.loading.transforms.NAME`."""

    NAME = "augment"

    enabled: bool = setting(True, "Augment training samples.")
    spatial_probability: float = _probability(0.8, "rotation, scale and shift together")
    rotation_degrees: float = setting(20.0, "Largest rotation in either direction.", 0, 180)
    scale: tuple[float, float] = _range((0.8, 1.25), "Range of the magnification.", 0.1, 10)
    elastic_probability: float = _probability(0.2, "an elastic deformation")
    brightness_probability: float = _probability(0.3, "a brightness shift")
    brightness: float = setting(0.3, "Largest shift in either direction, in standard deviations.", 0, 10)
    contrast_probability: float = _probability(0.3, "a change of contrast")
    contrast: tuple[float, float] = _range(
        (0.7, 1.4), "Range of the factor on the deviation from the slice's mean.", 0.01, 100
    )
    gamma_probability: float = _probability(0.3, "a gamma curve on the slice's own range")
    gamma: tuple[float, float] = _range((0.7, 1.5), "Range of the exponent.", 0.01, 100)
    bias_field_probability: float = _probability(0.3, "a smooth multiplicative field (coil sensitivity)")
    bias_field: float = setting(0.3, "Standard deviation of the field's logarithm at its coarse nodes.", 0, 3)
    low_resolution_probability: float = _probability(0.15, "a lower resolution, sampled down and up again")
    low_resolution: tuple[float, float] = _range((1.0, 2.0), "Range of the down-sampling factor.", 1, 8)
    noise_probability: float = _probability(0.15, "Gaussian noise")
    noise: tuple[float, float] = _range(
        (0.0, 0.15), "Range of its standard deviation, in standard deviations of the volume.", 0, 10
    )


@dataclass(frozen=True)
class OptimConfig(Section):
    """Steps, learning rate and loss."""

    NAME = "optim"

    epochs: float | Auto = setting("auto", "Passes over the training slices; auto: 100 or by steps.", 1e-6, 1e6)
    batch_size: int | Auto = setting("auto", "Slices per step over all processes; auto: by their size.", 1, 65536)
    accumulate_steps: int = setting(
        1, "Parts in which a process computes its share of a batch, to need less memory.", 1, 65536
    )
    lr: float = setting(1.5e-3, "Peak learning rate of AdamW for a batch of lr_reference_batch slices.", 0, 10)
    lr_reference_batch: int = setting(
        8, "For another batch_size, lr is multiplied by the square root of their quotient; 0: never.", 0, 65536
    )
    init_lr_factor: float = setting(1.0, "Factor of the rate for weights that --init carried over.", 0, 10)
    freeze: Literal["none", "encoder"] = setting("none", "Part of the network that keeps the weights of --init.")
    weight_decay: float = setting(
        1e-2, "Decoupled weight decay on convolution weights; 0 makes AdamW plain Adam.", 0, 10
    )
    schedule: Literal["auto", "one_cycle", "poly", "constant", "trapezoid"] = setting(
        "auto", "Learning rate after warm-up; auto: trapezoid for a training in run.minutes, one_cycle for others."
    )
    warmup_fraction: float = setting(0.1, "Share of the steps in which the rate rises to its peak.", 0, 1)
    grad_clip_norm: float = setting(12.0, "Gradient norm is clipped to this; 0 leaves it.", 0, 1e9)
    ema_decay: float = setting(0.99, "Decay per step of the averaged weights, which are the ones exported.", 0, 1)
    dice_weight: float = setting(1.0, "Weight of the logarithmic Dice loss.", 0, 1e3)
    cross_entropy_weight: float = setting(1.0, "Weight of the cross entropy.", 0, 1e3)
    class_weights: Literal["none", "inverse_frequency"] = setting("none", "Weights in the cross entropy.")


@dataclass(frozen=True)
class RunConfig(Section):
    """Seed, arithmetic and records of a training."""

    NAME = "run"

    seed: int = setting(0, "Seed of weights, sample order and augmentation.", 0, 2**31 - 1)
    mixed_precision: Literal["no", "bf16", "fp16", "auto"] = setting("auto", "Arithmetic; auto: bf16 where fast.")
    channels_last: bool = setting(True, "Memory layout of activations.")
    compile: bool = setting(False, "torch.compile the network.")
    cuda_graph: Literal["on", "off", "auto"] = setting(
        "auto", "Replay the step as one CUDA graph; auto: on one GPU with the slices in its memory, except in fp16."
    )
    sync_batch_norm: bool = setting(False, "Batch norm over the slices of all processes.")
    activation_checkpointing: bool = setting(
        False, "Keep fewer activations and compute them again: less memory, more time."
    )
    resident_gb: float | Auto = setting(
        "auto",
        "Memory of a process's device for slices, in 10^9 bytes; if they do not fit they are streamed; auto: 40 % "
        "of the free memory.",
        0,
        1e6,
    )
    tracker: Literal["none", "wandb", "tensorboard", "mlflow"] = setting(
        "none", "Experiment tracker, besides metrics.jsonl."
    )
    minutes: float = setting(
        0.0,
        "Minutes that the whole training may take, which set the number of steps in place of epochs; 0: epochs.",
        0,
        1e6,
    )
    project: str = setting("attunet", "Project name at the tracker.")
    log_every: int = setting(10, "Steps between lines in metrics.jsonl.", 1, 10**6)
    validate_every_epochs: float | Auto = setting(
        "auto", "Epochs between validations; auto: ten in a run, as first planned for run.minutes.", 1e-6, 1e6
    )
    checkpoint_every_minutes: float = setting(5.0, "Minutes between checkpoints.", 0, 1e6)
    checkpoint_every_steps: int = setting(0, "Steps between checkpoints; 0: by time alone.", 0, 10**9)
    snapshots: int = setting(
        0,
        "Averaged weights to keep for an ensemble: those of the end, and of 10 %, 20 %, ... of the steps before.",
        0,
        5,
    )
    timeout_minutes: float = setting(10.0, "Minutes that a process waits for the others before it gives up.", 0.05, 1e4)
    device: Literal["cpu", "cuda", "auto"] = setting("auto", "Device of a training in one process.")


def _resolved(section: type[Section], name: str) -> Any:
    """A required field with the documentation and the bounds of the section's own."""
    (base,) = (f for f in dataclasses.fields(section) if f.name == name)
    return field(metadata=base.metadata, kw_only=True)


@dataclass(frozen=True)
class ResolvedModelConfig(ModelConfig):
    base_width: int = _resolved(ModelConfig, "base_width")


@dataclass(frozen=True)
class ResolvedOptimConfig(OptimConfig):
    epochs: float = _resolved(OptimConfig, "epochs")
    batch_size: int = _resolved(OptimConfig, "batch_size")
    schedule: Literal["one_cycle", "poly", "constant", "trapezoid"] = _resolved(OptimConfig, "schedule")
