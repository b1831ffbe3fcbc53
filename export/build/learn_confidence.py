"""The estimator of Dice for an artefact, learned on the held-out cases of a cross-validation of the same network."""

import logging
from collections.abc import Sequence
from pathlib import Path

from attunet.confidence.estimator import Estimator, LearnedCase, learn
from attunet.errors import InputError
from attunet.evaluate_case import observe_case, read_labelled_case
from attunet.runs.ensemble import ensemble_of
from attunet.runs.learned_cases import FILE, ObservedModel, learned_runs, read_learned_cases
from attunet.runs.load_run import TrainedRun, in_numbers, load_run
from attunet.runs.run_folder import CHECKPOINTS, is_snapshots
from attunet.runs.run_model import run_model
from attunet.store import Store
from attunet.volumes.spec import Postprocessing

logger = logging.getLogger(__name__)


def learn_confidence(folder: Path, run: TrainedRun, store: Store, postprocessing: Postprocessing) -> Estimator:
    """Learn from the runs of a cross-validation in `folder`, or in a folder in it, down to one run.

    A single network learns from the predictions of single networks. An ensemble learns from ensembles of each fold's
    runs, of all seeds and of all its networks, which are predicted here; with one run there are none, and it learns
    from single networks with a warning. The post-processing is the artefact's.

    Raises InputError for a folder without cases to learn from, of another network or data set, of several recipes, or
    of runs that were trained again.
    """
    runs = _runs_like(folder, ObservedModel.of_members(run, store, postprocessing))
    snapshots = is_snapshots(run.path)
    if snapshots:
        logger.warning("confidence of the snapshots is learned on single networks")
    ensembles = run.num_members > 1 and not snapshots
    estimator = learn(_cases_of_ensembles(runs, store, postprocessing) if ensembles else _cases_of_runs(runs))
    logger.info(f"confidence {estimator.describe()}")
    return estimator


def _runs_like(folder: Path, models: Sequence[ObservedModel]) -> list[Path]:
    """The runs of the networks that are exported; of one recipe each."""
    runs = list(learned_runs(folder)) if folder.is_dir() else []
    if not runs:
        raise InputError(
            f"{folder}: has no cases to learn confidence from; `attunet crossvalidate STORE {folder}` makes them, with "
            "--no-train from finished trainings"
        )
    there = {path: read_learned_cases(path)[0] for path in runs}
    for path, model in there.items():
        if (path / CHECKPOINTS).is_dir() and load_run(path).checkpoint_sha256 != (model.checkpoint,):
            raise InputError(
                f"{path / FILE}: is of another checkpoint than this run has now; `attunet crossvalidate` makes it anew"
            )
    like = []
    for model in models:
        of_network = [path for path in runs if not there[path].difference(model)]
        if not of_network:
            path = next((p for p in runs if there[p].difference(model) == "post-processing"), runs[0])
            difference = there[path].difference(model)
            raise InputError(
                f"{path}: confidence must be learned from runs like the exported one, but the {difference} differs; "
                "`attunet crossvalidate` with its recipe and store makes them anew"
            )
        recipes = sorted({path.resolve().parent.parent for path in of_network})  # RECIPE/MODEL/seed-S/fold-K
        if len(recipes) > 1:
            names = " or ".join(str(folder / Path(*recipe.parts[-2:])) for recipe in recipes)
            raise InputError(f"{folder}: has several recipes for this network; give {names}")
        like += of_network
    return like


def _cases_of_runs(runs: Sequence[Path]) -> list[LearnedCase]:
    return [case for path in runs for case in read_learned_cases(path)[1].values()]


def _cases_of_ensembles(runs: Sequence[Path], store: Store, postprocessing: Postprocessing) -> list[LearnedCase]:
    """Predictions of the ensembles of each fold's runs, one for each network and seed."""
    folds: dict[str, list[Path]] = {}
    for path in runs:
        folds.setdefault(path.resolve().name, []).append(path)
    if any(len(members) < 2 for members in folds.values()):
        logger.warning("confidence of the ensemble is learned on single networks: its folds have one run each")
        return _cases_of_runs(runs)
    cases = []
    for name, members in sorted(folds.items()):
        ensemble = ensemble_of(members[0].parent.parent / name, [load_run(path) for path in members])
        ensemble = in_numbers(ensemble, store)
        model = run_model(ensemble, "cpu")
        for case in ensemble.held_out:
            evaluation = observe_case(model, read_labelled_case(store, case))
            cases.append(evaluation.learned(store.case(case).patient, postprocessing))
        logger.info(f"confidence: {name}, {len(members)} networks on {len(ensemble.held_out)} held-out cases")
    return cases
