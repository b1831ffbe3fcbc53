"""The planned arms: what each trains, with the reason, and which arms are compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from attunet.benchmarks.evaluation.commands import repeated
from attunet.store import Store

RECIPE = "chaos-cpu"
UNET = ("unet",)
NETWORKS = (*UNET, "attention_unet")
SNAPSHOTS = 4
PRETRAIN = "generated"
PRETRAINING_EPOCHS = 8.3  # about 4000 steps on 128 cases
# One validation at the end, checkpoints at the end, and few stops to read the losses.
COMMON = ("run.validate_every_epochs=1e6", "run.checkpoint_every_minutes=1e6", "run.log_every=100")
# Contrasts drawn widely, since generated grey values are not those of a scanner.
WIDE_AUGMENTATION = (
    "augment.brightness_probability=0.8",
    "augment.brightness=0.6",
    "augment.contrast_probability=0.8",
    "augment.contrast=[0.4, 2.0]",
    "augment.gamma_probability=0.8",
    "augment.gamma=[0.5, 2.2]",
    "augment.bias_field_probability=0.6",
    "augment.bias_field=0.5",
    "augment.noise_probability=0.4",
    "augment.noise=[0.0, 0.3]",
    "augment.low_resolution_probability=0.3",
)


@dataclass(frozen=True)
class Arm:
    """One recipe on all folds."""

    name: str  # in tables
    reason: str  # the expectation, written down before anything was measured
    settings: tuple[str, ...] = ()  # `section.field=value`, over those of `chaos-cpu`
    against: str = ""  # the arm that it is compared with; empty for none
    networks: tuple[str, ...] = NETWORKS  # that are trained
    init: bool = False  # starts from the network that was trained on generated abdomens

    @property
    def folder(self) -> str:
        return self.name.replace(", ", "-").replace(" ", "-")

    @property
    def has_ensembles(self) -> bool:
        return len(self.networks) > 1


ARMS = (
    Arm(
        "plain",
        "the recipe chaos-cpu as it is; its four members and its snapshots are ensembles of nearly independent errors",
    ),
    Arm(
        "200 epochs",
        "the loss of chaos-cpu still falls in its last third; twice the steps at the same peak rate",
        settings=("optim.epochs=200",),
        against="plain",
    ),
    Arm(
        "deep supervision",
        "coarse levels get a gradient of their own, which fixes the left-right position of organs early (nnU-Net)",
        settings=("model.deep_supervision=true",),
        against="plain",
    ),
    Arm(
        "residual",
        "residual encoders train better at equal parameters (ResEnc of nnU-Net)",
        settings=("model.blocks=residual",),
        against="plain",
    ),
    Arm(
        "from generated",
        "generated abdomens teach anatomy, of which five scans need little more: a small gain at most",
        against="plain",
        networks=UNET,
        init=True,
    ),
)


@dataclass(frozen=True)
class Training:
    """A training of an arm."""

    arm: Arm
    network: str
    seed: int
    fold: int | Literal["all"]  # whose cases are left out
    store: Path
    run: Path
    settings: tuple[str, ...]  # `section.field=value`, over those of `chaos-cpu`
    init: Path | None = None  # run to start from

    @property
    def name(self) -> str:
        return f"{self.arm.name}, {self.network} {self.seed}, fold {self.fold}"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of `attunet train`."""
        start = () if self.init is None else ("--init", str(self.init))
        options = ("--model", self.network, "--fold", str(self.fold), "--config", RECIPE)
        return (str(self.store), str(self.run), *options, *repeated("--set", self.settings), *start, "--resume=auto")


def plan(
    arms: Sequence[Arm], store: Store, runs: Path, *, num_seeds: int, settings: Sequence[str] = ()
) -> list[Training]:
    """All trainings in the order of their worth: the plain arm, then one seed of every other arm, then the next seed.
    settings: of all trainings, over those of the arms.

    Example:
        >>> plan(ARMS, store, Path("out/runs"), num_seeds=2)[0].arm.name  # doctest: +SKIP
        'plain'
    """
    rounds = [(arm, seed) for arm in arms if not arm.against for seed in range(num_seeds)]
    rounds += [(arm, seed) for seed in range(num_seeds) for arm in arms if arm.against]
    trainings = []
    for arm, seed in rounds:
        own = (f"run.seed={seed}", f"run.snapshots={SNAPSHOTS if arm.has_ensembles else 0}")
        init = runs / PRETRAIN if arm.init else None
        for fold in range(store.num_folds):
            for network in arm.networks:
                run = runs / arm.folder / f"fold-{fold}" / f"{network}-{seed}"
                chosen = (*COMMON, *arm.settings, *own, *settings)
                trainings.append(Training(arm, network, seed, fold, store.path, run, chosen, init))
    return trainings


def pretraining(store: Path, runs: Path, settings: Sequence[str]) -> Training:
    """The training on generated cases that arms with `init` start from."""
    chosen = (*COMMON, f"optim.epochs={PRETRAINING_EPOCHS}", "run.seed=0", *WIDE_AUGMENTATION, *settings)
    return Training(Arm(PRETRAIN, ""), "unet", 0, "all", store, runs / PRETRAIN, chosen)
