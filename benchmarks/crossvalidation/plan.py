"""The trainings of a cross-validation: recipes × networks × seeds × folds."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attunet.benchmarks.crossvalidation.parent import FRESH, Parent
from attunet.benchmarks.evaluation.details import command
from attunet.config import Config
from attunet.errors import InputError
from attunet.presets import preset_names, training_config
from attunet.store import Store

SCORING_SHARE = 0.08  # of the time, for scores and pictures


@dataclass(frozen=True)
class PlannedRun:
    """One training. arguments: of `attunet train`, besides store, folder and fold."""

    recipe: str
    model: str
    seed: int
    fold: int
    path: Path
    config: Config
    arguments: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str, int, int]:
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
    parent: Parent = FRESH

    def plan(self, store: Store, out: Path) -> list[PlannedRun]:
        """All runs: seed by seed, fold by fold, with recipes and networks innermost,
        so that early results can be compared.

        Raises:
            InputError: for a fold without training cases, recipes of one name, and settings of the seed.
        """
        folds = list(range(store.num_folds)) if self.folds is None else list(dict.fromkeys(self.folds))
        for fold in folds:
            if not store.split(fold)[0]:
                raise InputError(f"{store.path}: fold {fold} has no labelled training case")
        if any(setting.replace(" ", "").startswith("run.seed=") for setting in self.settings):
            raise InputError("--set: must not set run.seed, which --seeds counts from 0")
        recipes, models = _recipes(self.config_names).items(), dict.fromkeys(self.models)
        grid = itertools.product(range(self.num_seeds), folds, recipes, models)
        return [
            self._run(store, out, seed, fold, recipe, config_name, model)
            for seed, fold, (recipe, config_name), model in grid
        ]

    def _run(
        self, store: Store, out: Path, seed: int, fold: int, recipe: str, config_name: str | None, model: str
    ) -> PlannedRun:
        settings = (*self.settings, f"run.seed={seed}")
        words = [
            "--model",
            model,
            *(["--config", config_name] if config_name else []),
            *(x for s in settings for x in ("--set", s)),
        ]
        config = dataclasses.replace(training_config(config_name, settings, model), data=store.data_config)
        path = out / recipe / model / f"seed-{seed}" / f"fold-{fold}"
        return PlannedRun(recipe, model, seed, fold, path, config, (*words, *self.parent.arguments))

    def command(self, store: Store, out: Path, every_postprocessing: bool) -> str:
        """The call that makes the same table elsewhere; of files their names alone."""
        words = [word for model in dict.fromkeys(self.models) for word in ("--model", model)]
        words += [word for name in dict.fromkeys(self.config_names) for word in ("--config", Path(name).name)]
        words += [word for setting in self.settings for word in ("--set", setting)]
        words += self.parent.words
        words += ["--seeds", str(self.num_seeds)] if self.num_seeds > 1 else []
        words += ["--folds", ",".join(map(str, self.folds))] if self.folds is not None else []
        words += ["--largest-component"] if every_postprocessing else []
        return command("crossvalidate", store.name, out.resolve().name, *words)

    def in_minutes(self, minutes: float, num_runs: int, jobs: int) -> "Grid":
        """The same trainings, each ended by the clock. minutes: for all of them and their scores."""
        return dataclasses.replace(
            self, settings=(*self.settings, f"run.minutes={minutes_per_run(minutes, num_runs, jobs)}")
        )


def minutes_per_run(minutes: float, num_runs: int, jobs: int) -> float:
    """The share of one training in the time of the whole table, of which `SCORING_SHARE` is kept for the scores and the
    pictures.
    """
    rounds = -(-num_runs // jobs)
    return round((1 - SCORING_SHARE) * minutes / rounds, 3)


def _recipes(config_names: Sequence[str]) -> dict[str, str | None]:
    """Recipe name -> value of `--config`; the recipe of a file has the file's name without its ending."""
    if not config_names:
        return {"default": None}
    recipes: dict[str, str | None] = {}
    for name in dict.fromkeys(config_names):
        recipe = name if name in preset_names() else Path(name).stem
        if recipe in recipes:
            raise InputError(f"--config: must have distinct names, got two recipes {recipe!r}; rename the file {name}")
        recipes[recipe] = name
    return recipes
