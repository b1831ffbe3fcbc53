"""The planned arms: what each trains, with the reason, and which arms are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attunet.benchmarks.evaluation.commands import repeated

RECIPE = "chaos-cpu"
UNET = ("unet",)
NETWORKS = (*UNET, "attention_unet")
SNAPSHOTS = 4
PRETRAIN = "generated"
BATCH = 8
PRETRAINING_EPOCHS = 8.3  # about 4000 steps on 128 cases
STEPS_OF_FEW = 1500  # of a training on few scans, the fewest that `auto` gives a training on a CPU
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
    name: str  # in tables
    reason: str  # the expectation, written down before anything was measured
    settings: tuple[str, ...] = ()  # `section.field=value`, over those of `chaos-cpu`
    against: str = ""  # the arm that it is compared with; empty for none
    networks: tuple[str, ...] = NETWORKS  # that are trained
    scans: int | None = None  # training scans of each fold; None for all but the one left out
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
        "trapezoid",
        "a rate that stays at its peak for 70 % of the steps: trainings in `run.minutes` have it, and on a coarse grid "
        "it had +0.039 over six trainings of one seed (the interval holds 0)",
        settings=("optim.schedule=trapezoid",),
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
    Arm("1 scan", "the least that anybody has", networks=UNET, scans=1),
    Arm(
        "1 scan, generated",
        "anatomy from generated abdomens is most of what one scan lacks",
        against="1 scan",
        networks=UNET,
        scans=1,
        init=True,
    ),
    Arm("2 scans", "two scans", networks=UNET, scans=2),
    Arm("2 scans, generated", "as for one scan", against="2 scans", networks=UNET, scans=2, init=True),
    Arm(
        "all scans, generated",
        "five scans need little more anatomy: a small gain at most",
        against="plain",
        networks=UNET,
        init=True,
    ),
)


@dataclass(frozen=True)
class Training:
    arm: Arm
    network: str
    seed: int
    fold: int
    store: Path  # the fold's own, see `stores`
    run: Path
    settings: tuple[str, ...]  # `section.field=value`, over those of `chaos-cpu`
    init: Path | None = None  # run to start from
    left_out: str = "0"  # fold of the store that is left out, or "all" for none

    @property
    def name(self) -> str:
        return f"{self.arm.name}, {self.network} {self.seed}, fold {self.fold}"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of `attunet train`."""
        start = () if self.init is None else ("--init", str(self.init))
        options = ("--model", self.network, "--fold", self.left_out, "--config", RECIPE)
        return (str(self.store), str(self.run), *options, *repeated("--set", self.settings), *start, "--resume=auto")


@dataclass(frozen=True)
class FoldStore:
    """A view of the store for one fold."""

    path: Path
    slices: int  # of its training scans


def plan(
    arms: Sequence[Arm],
    folds: Mapping[int | None, Sequence[FoldStore]],
    runs: Path,
    *,
    num_seeds: int,
    settings: Sequence[str] = (),
) -> list[Training]:
    """All trainings in the order of their worth: the plain arm, then one seed of every other arm, then the next seed.

    Args:
        folds: number of training scans (None: all but one) -> the folds.
        runs: folder of the runs.
        num_seeds: trainings of each network on each fold.
        settings: of all trainings, over those of the arms.

    Example:
        >>> plan(ARMS, folds, Path("out/runs"), num_seeds=2)[0].arm.name  # doctest: +SKIP
        'plain'
    """
    rounds = [(arm, seed) for arm in arms if not arm.against and arm.has_ensembles for seed in range(num_seeds)]
    rounds += [(arm, seed) for seed in range(num_seeds) for arm in arms if arm.against or not arm.has_ensembles]
    trainings = []
    for arm, seed in rounds:
        own = (f"run.seed={seed}", f"run.snapshots={SNAPSHOTS if arm.has_ensembles else 0}")
        for fold, view in enumerate(folds[arm.scans]):
            few = () if arm.scans is None else (f"optim.epochs={epochs_of(STEPS_OF_FEW, view.slices)}",)
            chosen = (*COMMON, *arm.settings, *own, *few, *settings)
            for network in arm.networks:
                run = runs / arm.folder / f"fold-{fold}" / f"{network}-{seed}"
                init = runs / PRETRAIN if arm.init else None
                trainings.append(Training(arm, network, seed, fold, view.path, run, chosen, init))
    return trainings


def pretraining(store: Path, runs: Path, settings: Sequence[str]) -> Training:
    """The training on generated cases that arms with `init` start from."""
    chosen = (*COMMON, f"optim.epochs={PRETRAINING_EPOCHS}", "run.seed=0", *WIDE_AUGMENTATION, *settings)
    return Training(Arm(PRETRAIN, ""), "unet", 0, 0, store, runs / PRETRAIN, chosen, left_out="all")


def epochs_of(steps: int, slices: int) -> float:
    """Epochs that make `steps` steps of `BATCH` slices."""
    return round((steps - 0.5) * BATCH / slices, 4)
