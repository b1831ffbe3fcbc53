"""The trainings of a cross-validation: recipes × networks × seeds × folds, and the weights that all start from."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attunet.benchmarks.evaluation.commands import command, repeated
from attunet.benchmarks.evaluation.saved_cases import FOLDER as CASES
from attunet.config import Config
from attunet.errors import InputError
from attunet.fields import is_file_name
from attunet.presets import preset_names, training_config
from attunet.runs.initial_weights import parse_renamed, read_initial_weights
from attunet.runs.load_run import TrainedRun
from attunet.runs.run_folder import CHECKPOINTS
from attunet.store import Store
from attunet.system.atomic_files import MANIFEST
from attunet.system.outputs import BESIDE_RESULTS, RESULTS

SCORING_SHARE = 0.08  # of the time, for scores and pictures
MIN_MINUTES = 0.1  # of a training
# Of the files and folders that lie beside the recipes, or make another product of their folder
OWN_NAMES = {MANIFEST, CHECKPOINTS, CASES, RESULTS, *(Path(name).parts[0] for name in BESIDE_RESULTS)}

Key = tuple[str, str, int, int]  # recipe, model, seed, fold


@dataclass(frozen=True)
class Parent:
    """Weights to start from; empty for fresh ones."""

    name: str = ""  # of the run or file
    sha256: str = ""
    arguments: tuple[str, ...] = ()  # of `attunet train`
    words: tuple[str, ...] = ()  # the same as they stand in results, without folders
    seen: tuple[str, ...] = ()  # hashes of the images that the weights have seen, as far as they are known

    def check_left_out(self, store: Store, fold: int) -> None:
        """Raises InputError if the weights have seen a case, or a patient, that a fold leaves out."""
        seen = store.seen_cases(self.seen) if self.seen else ()
        if both := [case for case in store.split(fold)[1] if case in seen]:
            raise InputError(
                f"--init: {self.name} must not have seen the cases that are left out, but it was trained on "
                f"{', '.join(both)} of fold {fold}, or on their patients; name another model or --folds"
            )

    def check_same(self, run: TrainedRun) -> None:
        """Raises InputError if a run started from other weights."""
        lineage = run.lineage
        if (lineage.sha256 if lineage else "") != self.sha256:
            which = "other" if lineage and lineage.parent == self.name else "the"
            there = f"{which} weights of {lineage.parent}" if lineage else "fresh weights"
            wanted = f"those of {self.name}" if self.name else "fresh weights"
            raise InputError(f"{run.path}: started from {there}, this comparison wants {wanted} (--init)")


def start_from(init: str | Path | None, init_classes: str) -> Parent:
    """Reads the weights to start from. Raises InputError where they cannot be read, or the classes are not
    `NEW=OLD,...`.
    """
    if init is None:
        if init_classes:
            raise InputError("--init-classes: needs --init")
        return Parent()
    weights = read_initial_weights(init)
    weights.warn_if_cases_are_unknown()
    renamed = ("--init-classes", init_classes) if init_classes else ()
    if init_classes:
        parse_renamed(init_classes)
    arguments = ("--init", str(Path(init).resolve()), *renamed)
    words = ("--init", weights.name, *renamed)
    return Parent(weights.name, weights.sha256, arguments, words, tuple(weights.seen or ()))


@dataclass(frozen=True)
class PlannedRun:
    recipe: str
    model: str
    seed: int
    fold: int
    path: Path
    config: Config
    arguments: tuple[str, ...]  # of `attunet train`, besides store, folder and fold
    parent: Parent = Parent()

    @property
    def key(self) -> Key:
        return self.recipe, self.model, self.seed, self.fold

    @property
    def name(self) -> str:
        return f"{self.recipe}/{self.model}/seed-{self.seed}/fold-{self.fold}"


@dataclass(frozen=True)
class Grid:
    """The arguments of `crossvalidate` that say which trainings there are."""

    models: Sequence[str]
    config_names: Sequence[str]
    settings: Sequence[str]
    num_seeds: int
    folds: Sequence[int] | None
    parent: Parent

    def plan(self, store: Store, out: Path) -> list[PlannedRun]:
        """All runs: seed by seed, fold by fold, with recipes and networks innermost, so that early results can be
        compared. Raises InputError for a fold without training cases or with cases that the parent has seen, recipes of
        one name, and settings of the seed.
        """
        folds = list(range(store.num_folds)) if self.folds is None else list(dict.fromkeys(self.folds))
        for fold in folds:
            if not store.split(fold)[0]:
                raise InputError(f"{store.path}: fold {fold} has no labelled training case")
            self.parent.check_left_out(store, fold)
        if any(setting.replace(" ", "").startswith("run.seed=") for setting in self.settings):
            raise InputError("--set: must not set run.seed, which --seeds counts from 0")
        runs = []
        for seed, fold, (recipe, config_name), model in itertools.product(
            range(self.num_seeds), folds, _recipes(self.config_names).items(), dict.fromkeys(self.models)
        ):
            settings = (*self.settings, f"run.seed={seed}")
            named = ["--config", config_name] if config_name else []
            arguments = ("--model", model, *named, *repeated("--set", settings), *self.parent.arguments)
            config = dataclasses.replace(training_config(config_name, settings, model), data=store.data_config)
            path = out / recipe / model / f"seed-{seed}" / f"fold-{fold}"
            runs.append(PlannedRun(recipe, model, seed, fold, path, config, arguments, self.parent))
        return runs

    def command(self, store: Store, out: Path, every_postprocessing: bool) -> str:
        """The call that makes the same table elsewhere; of files their names alone."""
        words = [
            *repeated("--model", dict.fromkeys(self.models)),
            *repeated("--config", (Path(name).name for name in dict.fromkeys(self.config_names))),
            *repeated("--set", self.settings),
            *self.parent.words,
        ]
        words += ["--seeds", str(self.num_seeds)] if self.num_seeds > 1 else []
        words += ["--folds", ",".join(map(str, self.folds))] if self.folds is not None else []
        words += ["--largest-component"] if every_postprocessing else []
        return command("crossvalidate", store.name, out.resolve().name, *words)

    def in_minutes(self, minutes: float) -> "Grid":
        """The same trainings, each ended by the clock after so many minutes."""
        return dataclasses.replace(self, settings=(*self.settings, f"run.minutes={minutes}"))


def minutes_per_run(minutes: float, num_runs: int, jobs: int, *, scoring: float = 0.0, spent: float = 0.0) -> float:
    """The share of one training in the time of a whole table. Raises InputError where it is below `MIN_MINUTES`.

    Args:
        minutes: for everything.
        num_runs: the trainings; `jobs` of them run at a time.
        scoring: minutes for scores and pictures; `SCORING_SHARE` of the time is kept for them at least.
        spent: minutes that are over.

    Example:
        >>> minutes_per_run(100, 10, 2)
        18.4
    """
    rounds = -(-num_runs // jobs)
    share = round((minutes - spent - max(SCORING_SHARE * minutes, scoring)) / rounds, 3)
    if share < MIN_MINUTES:
        missing = math.ceil(round(10 * (MIN_MINUTES - share) * rounds, 6)) / 10
        raise InputError(
            f"--minutes: too little time for {num_runs} trainings and their scores, {missing:.1f} more are needed"
        )
    return share


def _recipes(config_names: Sequence[str]) -> dict[str, str | None]:
    """Recipe name -> value of `--config`; the recipe of a file has the file's name without its ending."""
    if not config_names:
        return {"default": None}
    recipes: dict[str, str | None] = {}
    for name in dict.fromkeys(config_names):
        recipe = name if name in preset_names() else Path(name).stem
        if not is_file_name(recipe):
            raise InputError(f"--config: the name of {name} must name the recipe's folder, got {recipe!r}; rename it")
        if recipe.startswith(".") or recipe.lower() in OWN_NAMES:
            raise InputError(
                f"--config: the recipe {recipe!r} would have the place of the table's own files; rename {name}"
            )
        if recipe in recipes:
            raise InputError(f"--config: must have distinct names, got two recipes {recipe!r}; rename the file {name}")
        recipes[recipe] = name
    return recipes
