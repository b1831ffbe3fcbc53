"""Scores of a finished run of a cross-validation on its held-out cases, from the source files, on the native grid."""

import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attunet.benchmarks.crossvalidation.jobs import predicting_device
from attunet.benchmarks.crossvalidation.plan import PlannedRun
from attunet.benchmarks.evaluation.saved_cases import HELD_OUT, save_prediction
from attunet.channels import check_channels
from attunet.confidence.estimator import LearnedCase
from attunet.errors import InputError
from attunet.evaluate_case import observe_case, read_labelled_case
from attunet.fields import parse_json
from attunet.metrics.aggregate import is_score, mean, nan_to_null
from attunet.metrics.overlap import CaseMetrics
from attunet.runs.learned_cases import ObservedModel, is_learned, write_learned_cases
from attunet.runs.load_run import TrainedRun, load_run
from attunet.runs.read_checkpoint import newest_checkpoint
from attunet.runs.run_model import run_model
from attunet.runs.run_state import FREE_TO_CHANGE, SET_BY_TIME
from attunet.store import Store
from attunet.system.atomic_files import MANIFEST, require_regular, sha256, write_text
from attunet.volumes.model import Model
from attunet.volumes.spec import Postprocessing

logger = logging.getLogger(__name__)

SCHEMA = 3
MAX_TIME_RATIO = 1.25
FIXED_SECONDS = 10.0  # for the plots and pages of a table
FILE = "held_out.json"  # in the run's folder, beside its checkpoints
METRICS = tuple(f.name for f in dataclasses.fields(CaseMetrics) if f.name != "counts")

CaseScores = dict[str, dict[str, float]]  # case: class: value, NaN where not defined
Scores = dict[str, CaseScores]  # case: metric: class: value


@dataclass(frozen=True)
class HeldOut:
    """Scores of a finished run on its held-out cases, by `Postprocessing.words`."""

    run: Path
    scores: dict[str, Scores]


def score_run(
    planned: PlannedRun,
    store: Store,
    postprocessings: Sequence[Postprocessing],
    *,
    before: Callable[[], object] = lambda: None,
) -> HeldOut | None:
    """Scores a run, or reads its scores from an earlier call, which are saved in the run's folder; None if its training
    has not finished. Raises InputError if the run belongs to another store, fold or configuration. before: called
    before a label map of an earlier call is replaced.
    """
    path = planned.path
    if not progress_of(path)[1]:
        return None
    run = load_run(path)
    check_belongs(run, store, planned)
    cases = {case.name: [case.image_sha256, case.label_sha256] for case in store.cases if case.name in run.held_out}
    own = store.preprocessing.postprocessing
    facts: dict[str, Any] = {"schema": SCHEMA, "step": run.step, "cases": cases, "label_maps": own.words}
    facts["checkpoint"] = sha256(run.checkpoint / MANIFEST)
    facts["readings"] = {name: store.reading_sha256(name) for name in cases}
    scores = _saved_scores(path / FILE, facts, store.classes.foreground)
    missing = [postprocessing for postprocessing in postprocessings if postprocessing.words not in scores]
    (observed,) = ObservedModel.of_members(run, store, own)

    def begin() -> None:
        before()
        if own in missing:  # its label maps are written again
            (path / FILE).unlink(missing_ok=True)

    if missing or not is_learned(path, observed):
        new, learned = _score(run_model(run, predicting_device()), run, store, missing, begin)
        scores |= new
        write_learned_cases(path, observed, learned)
        write_text(path / FILE, json.dumps(facts | {"scores": nan_to_null(scores)}, indent=1, allow_nan=False))
    return HeldOut(path, scores)


def progress_of(path: Path) -> tuple[int, bool]:
    """Step of a run's newest intact checkpoint, 0 without one, and whether the training is finished."""
    try:
        checkpoint = newest_checkpoint(path / "checkpoints", parts=())
    except InputError:  # all are damaged; the training reports it when it is continued
        checkpoint = None
    return (0, False) if checkpoint is None else (checkpoint.state.step, checkpoint.state.finished)


def check_belongs(run: TrainedRun, store: Store, planned: PlannedRun) -> None:
    """Raises InputError with the first difference between a run and its place in a cross-validation."""
    fold, config = planned.fold, planned.config
    check_channels(run.path, run.channels, store.path, store.channels)
    training, held_out = store.split(fold)
    images = {name: store.case(name).image_sha256 for name in training}
    if (run.fold, run.training_cases, run.held_out) != (fold, images, held_out):
        raise InputError(f"{run.path}: must be of fold {fold} of {store.path}, but it was trained on other cases")
    run.check_masks(store, run.path)
    if run.spec != store.spec or run.classes != store.classes:
        raise InputError(f"{run.path}: must be of {store.path}; its preprocessing or its classes differ")
    _check_time(run, config.run.minutes)
    set_by_time = SET_BY_TIME if run.config.optim.schedule == "trapezoid" else ("epochs",)
    for section in ("model", "augment", "optim", "run"):
        wanted, there = (dataclasses.asdict(getattr(c, section)) for c in (config, run.config))
        for name, value in wanted.items():
            is_free = section == "run" and name in FREE_TO_CHANGE
            was = "auto" if f"{section}.{name}" in run.automatic else there[name]
            is_of_time = config.run.minutes and name in set_by_time
            if value not in (was, there[name]) and not is_free and not is_of_time:
                raise InputError(
                    f"{run.path}: was trained with {section}.{name} = {was!r}, this comparison wants {value!r}"
                )
    planned.parent.check_same(run)


def _check_time(run: TrainedRun, minutes: float) -> None:
    """Raises InputError unless the run had this time; a table's share of a training differs a little between calls."""
    had = run.config.run.minutes
    if bool(had) != bool(minutes) or not minutes / MAX_TIME_RATIO <= had <= minutes * MAX_TIME_RATIO:
        raise InputError(
            f"{run.path}: was trained with run.minutes = {had:g}, this comparison wants {minutes:g} (0: the recipe's "
            f"epochs); --set run.minutes={had:g} compares trainings of that time"
        )


def scoring_seconds(store: Store, folds: Sequence[int], num_postprocessings: int) -> float:
    """Estimates the seconds that scores and pictures of trainings, whose folds are given, take, from one case that is
    read and judged; 0 where no source file is there.
    """
    held_out = [name for fold in folds for name in store.split(fold)[1]]
    try:
        began = time.monotonic()
        case = read_labelled_case(store, held_out[0])
        read = time.monotonic()
        case.metrics(np.roll(case.truth, 1, axis=0))
        judged = time.monotonic() - read
    except (InputError, IndexError):  # the source files are gone, or nothing is held out: no scores
        return 0.0
    per_case = read - began + num_postprocessings * judged
    return FIXED_SECONDS + 2 * per_case * len(held_out)  # the network and the pictures take about as long again


def _score(
    model: Model,
    run: TrainedRun,
    store: Store,
    postprocessings: Sequence[Postprocessing],
    begin: Callable[[], object],
) -> tuple[dict[str, Scores], dict[str, LearnedCase]]:
    """Scores by post-processing, and by case what the estimator of Dice learns from. begin: called when the first case
    is read.
    """
    learned: dict[str, LearnedCase] = {}
    scores: dict[str, Scores] = {how.words: {} for how in postprocessings}
    for name in run.held_out:
        case = read_labelled_case(store, name)
        if not learned:
            begin()
        evaluation = observe_case(model, case)
        learned[name] = evaluation.learned(store.case(name).patient, store.preprocessing.postprocessing)
        for how in postprocessings:
            indices = evaluation.finished(how)
            if how == store.preprocessing.postprocessing:
                save_prediction(run.path / HELD_OUT / f"{name}.npz", indices, case.volume, store.spec)
            metrics = case.metrics(indices)
            scores[how.words][name] = {
                m: dict(zip(store.classes.foreground, map(float, getattr(metrics, m)), strict=True)) for m in METRICS
            }
        dice = mean(value for value in learned[name].dice if value is not None)
        logger.info(f"{run.path}: {name}: {'no class' if math.isnan(dice) else f'Dice {dice:.4f}'}")
    return scores, learned


def _saved_scores(file: Path, facts: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Scores]:
    """Scores that an earlier call saved for the same checkpoint and cases; empty if there are none. Raises InputError
    where they do not have a possible figure or null for each case, metric and class.
    """
    if not file.exists():
        return {}
    try:
        require_regular(file)
        data = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(data, dict) or any(data.get(name) != value for name, value in facts.items()):
        return {}
    try:
        return {
            words: {case: {m: _figures(m, one[case][m], classes) for m in METRICS} for case in facts["cases"]}
            for words, one in data["scores"].items()
        }
    except (KeyError, TypeError, AttributeError):
        raise InputError(
            f"{file}: must have a number or null for each case, metric and class; remove it, to judge the run again"
        ) from None


def _figures(metric: str, saved: dict[str, float | None], classes: Sequence[str]) -> dict[str, float]:
    if set(saved) != set(classes) or not all(is_score(metric, value) for value in saved.values()):
        raise TypeError
    return {name: math.nan if (value := saved[name]) is None else value for name in classes}
