"""The planned arms: what each trains, with the reason, and which arms are compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

UNET = ("unet",)
NETWORKS = (*UNET, "attention_unet")
SNAPSHOTS = 4
PRETRAIN = "generated"
BATCH = 8
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
    """One recipe on all folds.

    Args:
        name: in tables.
        reason: the expectation, written down before anything was measured.
        settings: `section.field=value`, over those of `chaos-cpu`.
        against: the arm that it is compared with; empty for none.
        networks: that are trained.
        scans: training scans of each fold; None for all but the one left out.
        init: True to start from the network that was trained on generated abdomens.
    """

    name: str
    reason: str
    settings: tuple[str, ...] = ()
    against: str = ""
    networks: tuple[str, ...] = NETWORKS
    scans: int | None = None
    init: bool = False

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
class Size:
    """Amounts of work.

    Args:
        settings: for all trainings, after those of `COMMON`.
        epochs: in place of every arm's own.
        steps: of a training on few scans; 1500 are the fewest that `auto` gives a training on a CPU.
        pretraining_steps: on the generated cases.
        generated: number of generated cases.
        reduce: divides their pixels in plane.
    """

    settings: tuple[str, ...] = ()
    epochs: float | None = None
    steps: int = 1500
    pretraining_steps: int = 4000
    generated: int = 128
    reduce: int = 1


FULL = Size()


@dataclass(frozen=True)
class Task:
    """Work for one process; those with equal `run` are the same work.

    Args:
        kind: "pretrain" trains on generated cases, "train" trains and judges, "ensemble" judges the trainings in the
            folder `run`.
        arm: its name.
        seed: of the training; -1 for an ensemble.
        fold: number of the fold.
        store: to train on and to judge with.
        run: folder of the run, or of the ensemble's members.
        settings: of the configuration.
        needs: folders of the tasks that must be done before.
        init: run to start from.
    """

    kind: Literal["pretrain", "train", "ensemble"]
    arm: str
    network: str
    seed: int
    fold: int
    store: Path
    run: Path
    settings: tuple[str, ...] = ()
    needs: tuple[Path, ...] = ()
    init: Path | None = None


@dataclass(frozen=True)
class FoldStore:
    """A view of the store for one fold. slices: of its training scans."""

    path: Path
    slices: int


def plan(
    arms: Sequence[Arm],
    folds: dict[int | None, list[FoldStore]],
    generated: FoldStore,
    out: Path,
    *,
    num_seeds: int,
    size: Size,
) -> list[Task]:
    """List all tasks in the order of their worth: the plain arm, then one seed of every other arm, then the next seed.

    Args:
        arms: to train.
        folds: number of training scans (None: all but one) -> the folds.
        generated: store of the generated cases; need not be there yet.
        out: folder of the runs.
        num_seeds: trainings of each network on each fold.
        size: amounts of work.

    Example:
        >>> plan(ARMS, folds, generated, Path("out"), num_seeds=2, size=Size())[0].arm  # doctest: +SKIP
        'plain'
    """
    settings, parent = (*COMMON, *size.settings), out / "runs" / PRETRAIN
    tasks: list[Task] = []
    rounds = [(arm, seed) for arm in arms if not arm.against and arm.has_ensembles for seed in range(num_seeds)]
    rounds += [(arm, seed) for seed in range(num_seeds) for arm in arms if arm.against or not arm.has_ensembles]
    for arm, seed in rounds:
        if arm.init and not any(task.kind == "pretrain" for task in tasks):
            epochs = f"optim.epochs={epochs_of(size.pretraining_steps, generated.slices)}"
            wide = (*settings, epochs, "run.seed=0", *WIDE_AUGMENTATION)
            tasks.append(Task("pretrain", PRETRAIN, "unet", 0, 0, generated.path, parent, wide, (generated.path,)))
        needs, init = ((parent,), parent) if arm.init else ((), None)
        own = [*settings, *arm.settings]
        own += [] if size.epochs is None else [f"optim.epochs={size.epochs}"]
        own += [f"run.seed={seed}", f"run.snapshots={SNAPSHOTS if arm.has_ensembles else 0}"]
        for fold, view in enumerate(folds[arm.scans]):
            folder = out / "runs" / arm.folder / f"fold-{fold}"
            few = [] if arm.scans is None else [f"optim.epochs={epochs_of(size.steps, view.slices)}"]
            chosen = (*own, *few)
            for network in arm.networks:
                run = folder / f"{network}-{seed}"
                tasks.append(Task("train", arm.name, network, seed, fold, view.path, run, chosen, needs, init))
            if seed == num_seeds - 1 and arm.has_ensembles:
                members = tuple(folder / f"{network}-{s}" for network in arm.networks for s in range(num_seeds))
                tasks.append(Task("ensemble", arm.name, "all", -1, fold, view.path, folder, (), members))
    return tasks


def epochs_of(steps: int, slices: int) -> float:
    """Epochs that make `steps` steps of `BATCH` slices."""
    return round((steps - 0.5) * BATCH / slices, 4)
